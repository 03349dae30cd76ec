"""What runs in Ray's workers: one trial, or one run of a finalist, and the reports to the driver.

The training itself is `pipeline.training.trial.run_trial`, the finalists' `pipeline.training.finalists`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from pipeline.cluster.messages import FinalistTask, Line, Suggestion, TrialReport, WorkerSettings
from pipeline.cluster.preemption import PreemptionNotice, raise_preempted
from pipeline.cluster.shared_objects import enter_worker, get_measuring, get_shared, worker_device
from pipeline.cluster.tasks import gpu_task, result_of
from pipeline.cluster.worker_log import collected_lines
from pipeline.config import SweepPaths, TrialConfig
from pipeline.errors import GansweepError
from pipeline.records import PENALTY, TrialRecord
from pipeline.search.resources import TrialResources
from pipeline.storage.fault_points import reach
from pipeline.storage.trial_storage import TrialStorage, trial_storage
from pipeline.training.events import EventKind, TrialEvent
from pipeline.training.finalists import FinalistRun, final_samples, measure_finalist, retrain
from pipeline.training.process import exit_when_silent, prepare_process
from pipeline.training.seeds import trial_seed
from pipeline.training.trial import TrialSettings, run_trial

log = logging.getLogger(__name__)


def train_trial(suggested: Suggestion, settings: WorkerSettings) -> None:
    """Run a trial, or go on with it from what its folder holds, and report each of its records."""
    number, node = suggested["number"], ray.get_runtime_context().get_node_id()
    events: list[TrialEvent] = []
    with collected_lines() as lines:
        enter_worker(settings.mps)
        try:
            dataset, evaluator = get_shared(settings.shared_refs)
            seed = trial_seed(settings.config.seed, number)
            config = TrialConfig.from_dict({**settings.fixed, **suggested["params"], "seed": seed})
            storage = trial_storage(settings.root, settings.store)
            folder = SweepPaths(storage.root).trial(number)
            storage.fetch(folder)
            with PreemptionNotice(node) as notice:
                how = TrialSettings(
                    number=number,
                    device=worker_device(),
                    threads=settings.threads,
                    should_stop=lambda: notice.received() or storage.stop_requested(),
                    on_event=events.append,
                )
                trial = run_trial(config, dataset, evaluator, folder, how)
                finished = False
                for record in trial:
                    _publish(storage, folder, events)
                    _report(record, events, lines, node)
                    finished = record.kimg == config.kimg or record.verdict == "diverged"
                if not finished:
                    _publish(storage, folder, events)  # the mid-tick checkpoint of the tick it stopped in
                    if notice.received():
                        raise_preempted()
        except GansweepError as error:
            tune.report(TrialReport(objective=PENALTY, failure=str(error), events=events, lines=lines))


def _report(record: TrialRecord, events: list[TrialEvent], lines: list[Line], node: str) -> None:
    """Report a record to Tune with the events and the lines since the last one, which are removed."""
    report = TrialReport(objective=record.objective, record=record, node=node)
    tune.report({**report, "events": events.copy(), "lines": lines.copy()})
    events.clear()
    lines.clear()


def _publish(storage: TrialStorage, folder: Path, events: list[TrialEvent]) -> None:
    """Publish the files of a trial; if the store is away, that is an event of the trial."""
    problem = storage.publish(folder)
    if problem:
        events.append(TrialEvent(EventKind.STORE_AWAY, problem))


def run_finalists(
    tasks: Sequence[FinalistTask],
    settings: WorkerSettings,
    resources: TrialResources,
    should_stop: Callable[[], bool],
) -> list[FinalistRun]:
    """Carry out each run as a Ray task; returns the runs with their measurements, or none if stopped.

    resources: of one run, and how many run at a time. should_stop: asked twice a second.
    """
    remote = gpu_task(_run_finalist, resources.gpus).options(**resources.task_options)
    waiting, runs = list(tasks), list[FinalistRun]()
    running: dict[Any, FinalistTask] = {}
    while waiting or running:
        while waiting and len(running) < resources.concurrency:
            task = waiting.pop(0)
            running[remote.remote(task, settings)] = task
        for call in ray.wait(list(running), timeout=0.5)[0]:
            run, result = running.pop(call).run, result_of(call, str)
            # A text: the worker died, more often than Ray tries again.
            runs.append(replace(run, problem=result) if isinstance(result, str) else result)
            log.info(_line(runs[-1]))
            reach("finalist")
        if should_stop():
            return []
    return runs


def _line(run: FinalistRun) -> str:
    name = f"finalist {run.trial}" + (f", seed {run.index}" if run.index else "")
    if run.measurement is None:
        return f"{name}: {run.problem}"
    found = run.measurement
    return f"{name}: fid {found.fid:.4g} in [{found.fid_low:.4g}, {found.fid_high:.4g}] of {found.n} samples"


def _run_finalist(task: FinalistTask, settings: WorkerSettings) -> FinalistRun:
    """Train the run if it is another seed of its trial, and measure it."""
    enter_worker(settings.mps)
    prepare_process(settings.threads)
    storage = trial_storage(settings.root, settings.store)
    paths, requested = SweepPaths(storage.root), task.run
    run = replace(requested, folder=paths.rerun(requested.trial, requested.index))
    with exit_when_silent(task.hang_sec) as progressed:

        def on_tick() -> None:
            progressed()
            storage.publish(run.folder)

        try:
            dataset, evaluator = get_measuring(settings.shared_refs)
            for folder in (paths.trial(run.trial), run.folder):
                storage.fetch(folder)
            if run.index:
                how = TrialSettings(
                    device=worker_device(), threads=settings.threads, should_stop=storage.stop_requested
                )
                retrain(paths.trial(run.trial), run, task.kimg, dataset, evaluator, how, on_tick)
        except GansweepError as error:
            return replace(requested, problem=str(error))
        progressed()
        config = settings.config
        n = final_samples(evaluator, config.final_samples)
        measured = measure_finalist(
            run,
            dataset,
            evaluator,
            n=n,
            seed=config.seed,
            device=worker_device(),
            on_progress=progressed,
        )
    return replace(measured, folder=requested.folder)
