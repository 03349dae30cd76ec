"""The objects of a sweep at work, each made from those before it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.reporting.summary import Summary
from pipeline.reporting.webhook import WebhookNotifier
from pipeline.search.study import open_study
from pipeline.search.trial_manager import TrialManager
from pipeline.storage.files import write_text
from pipeline.storage.lock import sweep_lock
from pipeline.storage.uploader import Uploader
from pipeline.sweep.inputs import SweepInputs, write_code
from pipeline.sweep.manifest import manifest_of
from pipeline.sweep.remains import begin_own_history
from pipeline.sweep.remote import FetchTrialFiles
from pipeline.sweep.request import Request
from pipeline.tracking.event_callback import EventLogCallback
from pipeline.tracking.event_log import EventLog
from pipeline.tracking.mlflow_exporter import MlflowExporter, start_exporter


@dataclass(frozen=True, kw_only=True)
class OpenSweep:
    """A sweep at work, whose folder this process has locked. uri: the MLflow store."""

    request: Request
    inputs: SweepInputs
    uploader: Uploader
    uri: str
    event_log: EventLog
    exporter: MlflowExporter
    manager: TrialManager
    summary: Summary


@contextlib.contextmanager
def open_sweep(
    request: Request, inputs: SweepInputs, uploader: Uploader, uri: str, spent_sec: float
) -> Iterator[OpenSweep]:
    """Lock the sweep's folder, write what describes the sweep, and take up what earlier processes did.

    spent_sec: search time of earlier processes.
    """
    paths, config, space, facts = request.paths, request.config, request.space, inputs.facts
    with (
        sweep_lock(paths),
        contextlib.closing(EventLog(paths.event_log, uploader.uploaded_bytes)) as event_log,
    ):
        begin_own_history(paths, event_log, uri)
        write_text(paths.config, manifest_of(request, facts, uri).to_toml())
        write_code(inputs.code, paths)
        study = open_study(config.name, request.storage or paths.study, config, space)
        event_log.artifact(None, paths.config)
        uploader.upload()  # the sweep's id is in the store before MLflow gets it
        exporter = start_exporter(paths, config, event_log, uri, facts.tables(), space.hash)
        manager = TrialManager(study, space, config, paths, spent_sec=spent_sec)
        summary = Summary(paths, config, facts.evaluator, manager)
        events = EventLogCallback(event_log, paths)
        manager.notify_history((events,))
        summary.write()
        with WebhookNotifier(request.notify, config.name, summary.content) as notifier:
            manager.begin((FetchTrialFiles(uploader, paths), events, summary, notifier))
            yield OpenSweep(
                request=request,
                inputs=inputs,
                uploader=uploader,
                uri=uri,
                event_log=event_log,
                exporter=exporter,
                manager=manager,
                summary=summary,
            )
