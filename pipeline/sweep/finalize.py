"""After the search: pack and register the winner, write the summary and the report, bring MLflow up to date.

Not responsible for choosing the winner: that is `pipeline.training.finalists`.
"""

from __future__ import annotations

import dataclasses
import logging
import shlex
from typing import Any

from pipeline.data.dataset import Dataset
from pipeline.errors import RegistryError
from pipeline.metrics import frechet
from pipeline.reporting.html.report import write_report
from pipeline.reporting.summary import Summary
from pipeline.search.trial_manager import TrialManager
from pipeline.sweep.request import Outcome, Request
from pipeline.tracking.event_log import EventLog
from pipeline.tracking.mlflow_exporter import MlflowExporter
from pipeline.tracking.provenance import provenance
from pipeline.tracking.registry.load import from_packed
from pipeline.tracking.registry.model_card import write_card
from pipeline.tracking.registry.pack import device_name, label_shares, pack_generator
from pipeline.tracking.registry.promote import register_version
from pipeline.training import finalists
from pipeline.training.checkpoint import best_generator, read_records

log = logging.getLogger(__name__)


def finalize(
    request: Request,
    trial_manager: TrialManager,
    summary: Summary,
    dataset: Dataset,
    evaluator: frechet.Evaluator,
    found: list[finalists.Finalist],
    exporter: MlflowExporter,
    uri: str,
) -> None:
    """Record the finalists in the summary, pack the winner and register it.

    Args:
        found: the finalists, best first; with none of them nothing is registered.
        uri: the MLflow store of the registry.
    """
    if not found:
        log.info("no trial has a fid: nothing to register")
        return
    rows = [{**final.row(), "params": trial_manager.trials[final.trial].params} for final in found]
    for row in rows:
        row["best"]["params"] = row.pop("params")
    summary.extra["finalists"] = rows
    summary.write(force=True)
    run = found[0].chosen
    assert run.measurement is not None
    if request.uploader:
        request.uploader.fetch_folder(run.folder)
    facts = {
        **rows[0]["best"],
        **rows[0]["measurement"],
        **_at_best(trial_manager, run),
        "withhold": list(run.measurement.verdicts),
        "sweep": request.config.name,
        "data": request.config.data,
        "fingerprint": dataset.fingerprint,
        "class_names": list(dataset.classes),
        "label_shares": label_shares(dataset),
        "space": request.space.hash,
        "search_seed": request.config.seed,
        **provenance(),
    }
    generator, _ = best_generator(run.folder)
    pack_generator(generator, request.paths.packed, facts)
    card = from_packed(request.paths.packed)
    records = read_records(run.folder)
    write_card(request.paths.packed, card, dataset, records, name=request.config.name)
    if request.register is not None:
        evaluator = dataclasses.replace(evaluator, samples=run.measurement.n)
        summary.extra["registered"] = _register(request, exporter, run.trial, facts, uri, evaluator)


def _at_best(trial_manager: TrialManager, run: finalists.FinalistRun) -> dict[str, Any]:
    """Metadata of a run beside its fid: D's scores at the best tick, training time and device."""
    assert run.record is not None
    last, gpus = read_records(run.folder)[-1], trial_manager.gpus_per_trial
    seconds = last.train_seconds + last.eval_seconds
    return {
        "auc": run.record["auc"],
        "overfit": run.record["overfit"],
        "seconds": round(seconds, 1),
        "device": device_name() if gpus else "cpu",
        "gpu_hours": round(seconds * gpus / 3600, 4),
        "sweep_hours": round(trial_manager.seconds / 3600, 4),
        "sweep_gpu_hours": round(trial_manager.gpu_hours, 4),
    }


def _register(
    request: Request,
    exporter: MlflowExporter,
    trial: int,
    facts: dict[str, Any],
    uri: str,
    evaluator: frechet.Evaluator,
) -> dict[str, Any] | None:
    """Register the packed winner; None, with a warning, where the registry does not take it."""
    if request.uploader:
        request.uploader.upload()
    exporter.flush(timeout=60.0)
    run = exporter.trial_run_id(trial)
    try:
        done = register_version(
            request.paths.packed,
            tracking_uri=uri,
            name=str(request.register),
            facts={**facts, "sweep_run_id": exporter.run_id, "run_id": run},
            run_id=run,
            promote=request.promote,
            evaluator=evaluator,
        )
    except RegistryError as error:
        again = shlex.quote(request.location)
        log.warning(f"not registered: {error}; later: gansweep register {again}")
        return None
    log.info(f"registered {done.uri}: {done.reason}")
    return dataclasses.asdict(done)


def close_sweep(
    summary: Summary, state: str, request: Request, event_log: EventLog, exporter: MlflowExporter, uri: str
) -> Outcome:
    """Write the last summary and the report, bring MLflow and the object store up to date.

    Args:
        state: finished, interrupted or failed.
    """
    summary.state = state
    summary.write(force=True)
    best = summary.content()["best"] or {}
    status = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}[state]
    numbers = {
        f"best_{k}": float(best[k]) for k in ("fid", "balance", "kimg", "trial") if best.get(k) is not None
    }
    if state == "finished":
        write_report(request.paths.root)
        event_log.artifact(None, request.paths.report)
    event_log.finish(status, numbers, {"gansweep.state": state})
    if request.uploader:
        request.uploader.upload()
    if not exporter.close(timeout=30.0):
        log.warning(f"MLflow is {exporter.status}; the event log keeps the rest for the next run or resume")
    if state == "finished" and request.uploader:
        request.uploader.delete_checkpoints(request.paths.root / "trials")
    return Outcome(state, request.paths.root, summary.content(), uri, request.location)
