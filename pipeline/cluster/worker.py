"""What runs in Ray's workers: one trial, or one run of a finalist, and the reports to the driver.

The training itself is `pipeline.training.trial.run_trial`, the finalists' `pipeline.training.finalists`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from pipeline.cluster.preemption import PreemptionNotice, raise_preempted
from pipeline.cluster.shared_objects import SharedRefs, get_shared, gpu_task, join_mps, worker_device
from pipeline.cluster.worker_log import Line, collected_lines
from pipeline.config import SweepConfig, SweepPaths, TrialConfig
from pipeline.errors import GansweepError
from pipeline.records import PENALTY, TrialRecord
from pipeline.search.resources import TrialResources
from pipeline.storage.trial_storage import TrialStorage, trial_storage
from pipeline.training.events import EventKind, TrialEvent
from pipeline.training.finalists import FinalistRun, final_samples, measure_finalist, retrain
from pipeline.training.process import exit_when_silent, prepare_process
from pipeline.training.seeds import trial_seed
from pipeline.training.trial import run_trial

log = logging.getLogger(__name__)


def train_trial(
    suggested: dict[str, Any],
    *,
    fixed: dict[str, Any],
    root: str,
    threads: int,
    shared_refs: SharedRefs,
    store: str = "",
    mps: int = 0,
) -> None:
    """Run a trial, or go on with it from what its folder holds, and report each of its records.

    Args:
        suggested: {"number", "params"} from the searcher.
        fixed: the space's fixed values and the sweep's seed.
        root: the sweep's folder.
        threads: CPU threads of the trial.
        shared_refs: the images and the evaluator.
        store: the object store's URL of a sweep that lives in one; the trial uploads each record's files
            before it reports the record.
        mps: how many trials share its GPU by `pipeline.cluster.mps`, 0 = no MPS.
    """
    # Arrays from Ray's object store are read-only; torch warns, although no trial writes to its images.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    number, node = suggested["number"], ray.get_runtime_context().get_node_id()
    events: list[TrialEvent] = []
    with collected_lines() as lines:
        if mps:
            join_mps(mps)
        try:
            dataset, evaluator = get_shared(shared_refs)
            seed = trial_seed(fixed["seed"], number)
            config = TrialConfig.from_dict({**fixed, **suggested["params"], "seed": seed})
            storage = trial_storage(root, store)
            folder = _fetch_folder(storage, number)
            with PreemptionNotice(node) as notice:
                trial = run_trial(
                    config,
                    dataset,
                    evaluator,
                    folder,
                    number=number,
                    device=worker_device(),
                    threads=threads,
                    should_stop=lambda: notice.received() or storage.stop_requested(),
                    on_event=events.append,
                )
                finished = False
                for record in trial:
                    _publish(storage, folder, events)
                    _report(record, events, lines, node)
                    finished = record.kimg == config.kimg or record.verdict == "diverged"
                if not finished:
                    _publish(storage, folder, events)  # the mid-tick checkpoint of the tick it stopped in
                if not finished and notice.received():
                    raise_preempted()
        except GansweepError as error:
            tune.report({"objective": PENALTY, "failure": str(error)})


def _fetch_folder(storage: TrialStorage, number: int) -> Path:
    """Fetch the folder of a trial; returns it."""
    folder = SweepPaths(storage.root).trial(number)
    storage.fetch(folder)
    return folder


def _report(record: TrialRecord, events: list[TrialEvent], lines: list[Line], node: str) -> None:
    """Report a record to Tune with the events and the lines since the last one, which are removed."""
    more = {"record": record, "events": events.copy(), "lines": lines.copy(), "node": node}
    tune.report({"objective": record.objective, **more})
    events.clear()
    lines.clear()


def _publish(storage: TrialStorage, folder: Path, events: list[TrialEvent]) -> None:
    """Publish the files of a trial; if the store is away, that is an event of the trial."""
    problem = storage.publish(folder)
    if problem:
        events.append(TrialEvent(EventKind.STORE_AWAY, problem))


def run_finalists(
    requested: Sequence[tuple[FinalistRun, int]],
    paths: SweepPaths,
    config: SweepConfig,
    shared_refs: SharedRefs,
    resources: TrialResources,
    *,
    bounds: Mapping[int, float],
    store: str = "",
    mps: int = 0,
    should_stop: Callable[[], bool],
) -> list[FinalistRun]:
    """Carry out each run as a Ray task; returns the runs with their measurements, or none if stopped.

    Args:
        requested: each run with its kimg.
        paths: of the sweep.
        config: of the sweep.
        shared_refs: the images and the evaluator.
        resources: of one run, and how many run at a time.
        bounds: by trial, for how many seconds its run may make no progress before its worker ends.
        store: as of `train_trial`.
        mps: as of `train_trial`.
        should_stop: asked twice a second.
    """
    common = {
        "root": str(paths.root),
        "store": store,
        "config": config,
        "shared_refs": shared_refs,
        "threads": resources.threads,
        "mps": mps,
    }
    task = gpu_task(_finalist, resources.gpus).options(**resources.task_options)
    waiting, runs = list(requested), []
    running: dict[Any, FinalistRun] = {}
    while waiting or running:
        while waiting and len(running) < resources.concurrency:
            run, kimg = waiting.pop(0)
            call = task.remote(run, kimg, bound_sec=bounds[run.trial], **common)
            running[call] = run
        for call in ray.wait(list(running), timeout=0.5)[0]:
            runs.append(_result(call, running.pop(call)))
            log.info(_line(runs[-1]))
        if should_stop():
            return []
    return runs


def _result(call: Any, requested: FinalistRun) -> FinalistRun:
    try:
        run: FinalistRun = ray.get(call)
    except ray.exceptions.RayError as error:  # the worker died, more often than Ray tries again
        return replace(requested, problem=str(error).strip().splitlines()[-1][:500])
    return run


def _line(run: FinalistRun) -> str:
    name = f"finalist {run.trial}" + (f", seed {run.index}" if run.index else "")
    if run.measurement is None:
        return f"{name}: {run.problem}"
    found = run.measurement
    return f"{name}: fid {found.fid:.4g} in [{found.fid_low:.4g}, {found.fid_high:.4g}] of {found.n} samples"


def _finalist(
    requested: FinalistRun,
    kimg: int,
    *,
    bound_sec: float,
    root: str,
    store: str,
    config: SweepConfig,
    threads: int,
    shared_refs: SharedRefs,
    mps: int,
) -> FinalistRun:
    """Train the run if it is another seed of its trial, and measure it."""
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    if mps:
        join_mps(mps)
    prepare_process(threads)
    storage = trial_storage(root, store)
    paths = SweepPaths(storage.root)
    run = replace(requested, folder=paths.rerun(requested.trial, requested.index))
    with exit_when_silent(bound_sec) as progressed:

        def on_tick() -> None:
            progressed()
            storage.publish(run.folder)

        try:
            dataset, evaluator = get_shared(shared_refs)
            for folder in (paths.trial(run.trial), run.folder):
                storage.fetch(folder)
            if run.index:
                retrain(
                    paths.trial(run.trial), run, kimg, dataset, evaluator,
                    device=worker_device(), threads=threads,
                    should_stop=storage.stop_requested, on_tick=on_tick,
                )  # fmt: skip
        except GansweepError as error:
            return replace(requested, problem=str(error))
        progressed()
        n = final_samples(evaluator, config.final_samples)
        measured = measure_finalist(run, dataset, evaluator, n=n, seed=config.seed, device=worker_device())
    return replace(measured, folder=requested.folder)
