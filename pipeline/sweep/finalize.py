"""After the search: pack and register the winner; bring summary, report, MLflow and store up to date."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shlex
from collections.abc import Iterator, Sequence

from pipeline.errors import GansweepError, RegistryError, first_line, redact
from pipeline.metrics.second_opinion import compare_winners
from pipeline.reporting.html.report import write_report
from pipeline.storage.fault_points import reach
from pipeline.storage.files import no_space, read_json
from pipeline.storage.summary_file import FinalistRow, SecondOpinion, SweepState
from pipeline.storage.typed_json import to_json
from pipeline.sweep.cleanup import sync_mlflow
from pipeline.sweep.open_sweep import OpenSweep
from pipeline.sweep.request import Request
from pipeline.sweep.result import Result
from pipeline.tracking.cursor import store_key, unexported
from pipeline.tracking.event_log import SWEEP_STATUS, EventLog
from pipeline.tracking.provenance import provenance
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import SCHEMA, ModelMetadata
from pipeline.tracking.registry.model_card import write_card
from pipeline.tracking.registry.pack import device_name, label_shares, pack_generator
from pipeline.tracking.registry.promote import register_version
from pipeline.training.checkpoint import best_generator, read_records
from pipeline.training.finalists import Finalist, FinalistRun

log = logging.getLogger(__name__)


def finalize(sweep: OpenSweep, found: Sequence[Finalist]) -> tuple[str, ...]:
    """Record the finalists (best first), pack the winner, register it and write the report.

    Each step can be repeated, so that a resume completes what a kill left undone. Returns what was asked for
    and could not be done, a text each.
    """
    undone: list[str] = []
    if found:
        with _noted(sweep, undone, "the champion was not packed"):
            run, metadata = _pack(sweep, found)
            if sweep.request.register is not None:
                with _noted(sweep, undone, "no version was registered"):
                    _register(sweep, run, metadata)
    elif any(trial.best for trial in sweep.manager.trials.values()):
        undone.append("none of the finalists could be measured, so there is no champion")
    else:
        log.info("no trial has a fid: nothing to register")
    with _noted(sweep, undone, "report.html was not written"):
        write_report(sweep.request.paths.root, state="failed" if undone else "finished")
        sweep.event_log.artifact(None, sweep.request.paths.report)
        reach("reported")
    return tuple(undone)


@contextlib.contextmanager
def _noted(sweep: OpenSweep, undone: list[str], what: str) -> Iterator[None]:
    """Add an error to `undone`, so that the other steps are still done; a full disk is raised."""
    try:
        yield
    except Exception as error:  # torch.export, MLflow, plotly: whatever it is, the search is not lost
        if no_space(error, sweep.request.paths.root):
            raise
        reason = str(error) if isinstance(error, GansweepError) else first_line(error)
        undone.append(f"{what}: {redact(reason)}")
        log.warning(undone[-1])


def _pack(sweep: OpenSweep, found: Sequence[Finalist]) -> tuple[FinalistRun, ModelMetadata]:
    """Record the finalists and pack the winner with its card; returns its chosen run and what it claims."""
    request = sweep.request
    rows = [final.row(sweep.manager.trials[final.trial].params) for final in found]
    opinion = compare_winners(rows)
    sweep.summary.set_finalists(rows, opinion)
    if opinion is not None:
        level = logging.INFO if opinion.agrees else logging.WARNING
        log.log(level, f"second opinion ({opinion.extractor}): {opinion.text}")
    reach("measured")
    run = found[0].chosen
    sweep.uploader.fetch_folder(run.folder)
    metadata = _with_opinion(_describe(sweep, rows[0], run), opinion, request.config.second_opinion)
    generator, _ = best_generator(run.folder)
    packed = pack_generator(generator, request.paths.packed, metadata)
    reach("packed")
    card = (packed, LoadedGenerator(packed), sweep.inputs.dataset, read_records(run.folder))
    write_card(*card, name=request.config.name)
    reach("card")
    return run, metadata


def _with_opinion(claims: ModelMetadata, opinion: SecondOpinion | None, effect: str) -> ModelMetadata:
    """The claims with the second opinion. effect: `veto` = a disagreement is a reason to give no alias."""
    if opinion is None:
        return claims
    withhold = claims.withhold
    if effect == "veto" and not opinion.agrees:
        withhold = (*withhold, f"second opinion ({opinion.extractor}): {opinion.text}")
    return dataclasses.replace(claims, second_opinion=str(opinion), withhold=withhold)


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


def _register(sweep: OpenSweep, run: FinalistRun, metadata: ModelMetadata) -> None:
    """Register the packed winner; RegistryError where the registry does not take it."""
    request, exporter = sweep.request, sweep.exporter
    assert run.measurement is not None
    sweep.summary.set_registered(None)  # that of an earlier winner does not count
    sweep.uploader.upload()
    exporter.flush(timeout=60.0)
    run_id = exporter.trial_run_id(run.trial) or ""
    done = register_version(
        request.paths.packed,
        dataclasses.replace(metadata, sweep_run_id=exporter.run_id or "", run_id=run_id),
        tracking_uri=sweep.uri,
        name=str(request.register),
        promote=request.promote,
        evaluator=dataclasses.replace(sweep.inputs.evaluator, samples=run.measurement.n),
    )
    sweep.summary.set_registered(done)
    log.info(f"registered {done.uri}: {done.reason}")
    reach("registered")


def close_sweep(sweep: OpenSweep, state: SweepState, undone: tuple[str, ...] = ()) -> Result:
    """Bring MLflow, the object store and the summary up to date: `finished` is the last that becomes true.

    undone: what was asked for and could not be done.
    """
    request, event_log, exporter = sweep.request, sweep.event_log, sweep.exporter
    if state != "finished":
        sweep.summary.set_state(state)
    best = sweep.summary.content().best
    values = {name: getattr(best, name, None) for name in ("fid", "balance", "kimg", "trial")}
    numbers = {f"best_{name}": float(value) for name, value in values.items() if value is not None}
    event_log.finish(SWEEP_STATUS[state], numbers, {"gansweep.state": state})
    reach("ended")
    sweep.uploader.upload()
    if not exporter.close(timeout=30.0):
        again = f"gansweep sync {shlex.quote(request.location)} sends the rest"
        log.warning(f"MLflow is {exporter.status}; the event log keeps it: {again}")
    elif exporter.status.refused:
        log.warning(f"MLflow is {exporter.status}: it has not taken these, and never will")
    reach("sent")
    if state == "finished":
        sweep.uploader.upload()
        sweep.summary.set_state(state)
        sweep.uploader.upload()
        sweep.uploader.delete_checkpoints(request.paths.trials)
        reach("finished")
    return Result.of(request, state, sweep.uri, sweep.summary.content(), undone=undone)


def complete_finished(request: Request, uri: str) -> None:
    """What a finished sweep may lack later: a report that was deleted, events that MLflow has not got."""
    paths = request.paths
    if not paths.report.is_file():
        log.info(f"report.html is missing: it is written to {write_report(paths.root)}")
    key = store_key(paths.root, uri)
    if request.store or read_json(paths.export_cursor).get("store", key) != key:
        return
    with contextlib.closing(EventLog(paths.event_log)) as event_log:
        missing = unexported(paths.root, event_log, uri)
    if missing:
        try:
            sync_mlflow(paths.root, uri)
        except RegistryError as error:
            log.warning(str(error))
        else:
            log.info(f"sent to MLflow: {missing.total()} events that it had not got")
