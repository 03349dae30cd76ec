"""After the search: pack and register the winner; bring summary, report, MLflow and store up to date."""

from __future__ import annotations

import dataclasses
import logging
import shlex
from collections.abc import Sequence

from pipeline.errors import RegistryError, redact
from pipeline.reporting.html.report import write_report
from pipeline.storage.summary_file import FinalistRow, RegisteredVersion, SweepState
from pipeline.storage.typed_json import to_json
from pipeline.sweep.open_sweep import OpenSweep
from pipeline.sweep.request import Request
from pipeline.sweep.result import Result
from pipeline.tracking.event_log import SWEEP_STATUS
from pipeline.tracking.provenance import provenance
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import SCHEMA, ModelMetadata
from pipeline.tracking.registry.model_card import write_card
from pipeline.tracking.registry.pack import device_name, label_shares, pack_generator
from pipeline.tracking.registry.promote import register_version
from pipeline.training.checkpoint import best_generator, read_records
from pipeline.training.finalists import Finalist, FinalistRun

log = logging.getLogger(__name__)


def finalize(sweep: OpenSweep, found: Sequence[Finalist]) -> None:
    """Record the finalists (best first) in the summary, pack the winner and register it."""
    request, dataset = sweep.request, sweep.inputs.dataset
    if not found:
        log.info("no trial has a fid: nothing to register")
        return
    rows = [final.row(sweep.manager.trials[final.trial].params) for final in found]
    sweep.summary.set_finalists(rows)
    run = found[0].chosen
    sweep.uploader.fetch_folder(run.folder)
    metadata = _describe(sweep, rows[0], run)
    generator, _ = best_generator(run.folder)
    packed = pack_generator(generator, request.paths.packed, metadata)
    write_card(packed, LoadedGenerator(packed), dataset, read_records(run.folder), name=request.config.name)
    if request.register is not None:
        sweep.summary.set_registered(_register(sweep, run, metadata))


def _describe(sweep: OpenSweep, row: FinalistRow, run: FinalistRun) -> ModelMetadata:
    """What the packed winner claims. run: the chosen one of the finalist in `row`."""
    request, dataset, manager = sweep.request, sweep.inputs.dataset, sweep.manager
    assert run.record is not None
    last, gpus = read_records(run.folder)[-1], manager.gpus_per_trial
    seconds = last.train_seconds + last.eval_seconds
    claims = ModelMetadata.from_json({**to_json(row.best), **row.measurement.values, **provenance()})
    return dataclasses.replace(
        claims,
        schema=SCHEMA,
        withhold=row.measurement.verdicts,
        search_seed=request.config.seed,
        auc=run.record.auc,
        overfit=run.record.overfit,
        seconds=round(seconds, 1),
        device=device_name() if gpus else "cpu",
        gpu_hours=round(seconds * gpus / 3600, 4),
        sweep_hours=round(manager.seconds / 3600, 4),
        sweep_gpu_hours=round(manager.gpu_hours, 4),
        data=request.config.data,
        fingerprint=dataset.fingerprint,
        class_names=dataset.classes,
        label_shares=label_shares(dataset),
        sweep=request.config.name,
        space=request.space.hash,
    )


def _register(sweep: OpenSweep, run: FinalistRun, metadata: ModelMetadata) -> RegisteredVersion | None:
    """Register the packed winner; None, with a warning, where the registry does not take it."""
    request, exporter = sweep.request, sweep.exporter
    assert run.measurement is not None
    sweep.uploader.upload()
    exporter.flush(timeout=60.0)
    run_id = exporter.trial_run_id(run.trial) or ""
    try:
        done = register_version(
            request.paths.packed,
            dataclasses.replace(metadata, sweep_run_id=exporter.run_id or "", run_id=run_id),
            tracking_uri=sweep.uri,
            name=str(request.register),
            promote=request.promote,
            evaluator=dataclasses.replace(sweep.inputs.evaluator, samples=run.measurement.n),
        )
    except RegistryError as error:
        log.warning(f"not registered: {error}; later: {register_command(request, sweep.uri)}")
        return None
    log.info(f"registered {done.uri}: {done.reason}")
    return done


def register_command(request: Request, uri: str) -> str:
    """The command that registers the winner as the sweep would have. uri: the MLflow store."""
    stores = ["--name", str(request.register), "--promote", request.promote, "--tracking-uri", redact(uri)]
    return shlex.join(["gansweep", "register", request.location, *stores])


def close_sweep(sweep: OpenSweep, state: SweepState) -> Result:
    """Write the last summary and the report, bring MLflow and the object store up to date."""
    request, event_log, exporter = sweep.request, sweep.event_log, sweep.exporter
    sweep.summary.set_state(state)
    content = sweep.summary.content()
    best = {name: getattr(content.best, name, None) for name in ("fid", "balance", "kimg", "trial")}
    numbers = {f"best_{name}": float(value) for name, value in best.items() if value is not None}
    if state == "finished":
        write_report(request.paths.root)
        event_log.artifact(None, request.paths.report)
    event_log.finish(SWEEP_STATUS[state], numbers, {"gansweep.state": state})
    sweep.uploader.upload()
    if not exporter.close(timeout=30.0):
        log.warning(f"MLflow is {exporter.status}; the event log keeps the rest for the next run or resume")
    if state == "finished":
        sweep.uploader.delete_checkpoints(request.paths.root / "trials")
    return Result.of(request, state, sweep.uri, content)
