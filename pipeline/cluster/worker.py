"""Ray on one side, `pipeline.training.trial.run_trial` and `pipeline.training.finalists` on the other; nothing in between.

Owns: the report dictionary. Refuses: any decision on training.
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
from pipeline.cluster.worker_log import collected_lines
from pipeline.config import SweepConfig, SweepPaths, TrialConfig
from pipeline.errors import GansweepError
from pipeline.records import PENALTY
from pipeline.search.resources import TrialResources
from pipeline.storage.trial_storage import TrialStorage, trial_storage
from pipeline.training.events import EventKind, TrialEvent
from pipeline.training.finalists import FinalistRun, measure_finalist, retrain, samples_of
from pipeline.training.networks.custom import use_code
from pipeline.training.process import exit_when_silent, prepare_process
from pipeline.training.seeds import seed_of
from pipeline.training.trial import run_trial

log = logging.getLogger(__name__)


def train_trial(
    asked: dict[str, Any],
    *,
    fixed: dict[str, Any],
    root: str,
    threads: int,
    lent: SharedRefs,
    store: str = "",
    mps: int = 0,
) -> None:
    """Run the trial that was asked for, reporting each record; the folder of a number is its memory.

    asked: {"number", "params"} from the searcher. fixed: the space's fixed values and the sweep's seed.
    store: the address of a sweep that lives in one; its trials give it each record before they report it.
    mps: how many trials share its GPU by `pipeline.cluster.mps`, 0 = none.
    """
    # Ray's object store lends read-only memory; torch warns, although no trial writes to its images.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    number, here = asked["number"], ray.get_runtime_context().get_node_id()
    events: list[TrialEvent] = []
    with collected_lines() as lines:
        if mps:
            join_mps(mps)
        try:
            dataset, evaluator = get_shared(lent)
            config = TrialConfig.from_dict(
                {**fixed, **asked["params"], "seed": seed_of(fixed["seed"], number)}
            )
            storage = trial_storage(root, store)
            paths = SweepPaths(storage.root)
            folder = paths.trial(number)
            storage.take(paths.code)
            storage.take(folder)
            use_code(paths.code)
            with PreemptionNotice(here) as notice:
                trial = run_trial(
                    config,
                    dataset,
                    evaluator,
                    folder,
                    number=number,
                    device=worker_device(),
                    threads=threads,
                    should_stop=lambda: notice.received() or storage.stopped(),
                    on_event=events.append,
                )
                over = False
                for record in trial:
                    _give(storage, folder, events)
                    news = {"record": record, "events": events.copy(), "lines": lines.copy(), "node": here}
                    tune.report({"objective": record.objective, **news})
                    events.clear()
                    lines.clear()
                    over = record.kimg == config.kimg or record.verdict == "diverged"
                if not over:
                    _give(storage, folder, events)  # the tick that it was told to stop in
                if not over and notice.received():
                    raise_preempted()
        except GansweepError as error:
            tune.report({"objective": PENALTY, "failure": str(error)})


def _give(storage: TrialStorage, folder: Path, events: list[TrialEvent]) -> None:
    away = storage.give(folder)
    if away:
        events.append(TrialEvent(EventKind.STORE_AWAY, away))


def run_finalists(
    asked: Sequence[tuple[FinalistRun, int]],
    paths: SweepPaths,
    config: SweepConfig,
    lent: SharedRefs,
    share: TrialResources,
    *,
    bounds: Mapping[int, float],
    store: str = "",
    mps: int = 0,
    should_stop: Callable[[], bool],
) -> list[FinalistRun]:
    """Carry out each run (and its kimg) as a Ray task, a share each; none of them if stopped.

    bounds: by trial, for how many seconds its run may show no progress before its worker ends. mps: as of
    `train`.
    """
    known = {"root": str(paths.root), "store": store, "config": config, "lent": lent, "mps": mps}
    known["threads"] = share.threads
    one = gpu_task(_finalist, share.gpus).options(**share.task_options)
    waiting, runs = list(asked), []
    running: dict[Any, FinalistRun] = {}
    while waiting or running:
        while waiting and len(running) < share.concurrency:
            run, kimg = waiting.pop(0)
            work = one.remote(run, kimg, bound_sec=bounds[run.trial], **known)
            running[work] = run
        for work in ray.wait(list(running), timeout=0.5)[0]:
            runs.append(_result(work, running.pop(work)))
            log.info(_line(runs[-1]))
        if should_stop():
            return []
    return runs


def _result(work: Any, asked: FinalistRun) -> FinalistRun:
    try:
        run: FinalistRun = ray.get(work)
    except ray.exceptions.RayError as error:  # the worker died, more often than Ray tries again
        return replace(asked, problem=str(error).strip().splitlines()[-1][:500])
    return run


def _line(run: FinalistRun) -> str:
    name = f"finalist {run.trial}" + (f", seed {run.index}" if run.index else "")
    if run.measurement is None:
        return f"{name}: {run.problem}"
    found = run.measurement
    return f"{name}: fid {found.fid:.4g} in [{found.fid_low:.4g}, {found.fid_high:.4g}] of {found.n} samples"


def _finalist(
    asked: FinalistRun,
    kimg: int,
    *,
    bound_sec: float,
    root: str,
    store: str,
    config: SweepConfig,
    threads: int,
    lent: SharedRefs,
    mps: int,
) -> FinalistRun:
    """Train the run where it is another seed of its trial, and measure it."""
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    if mps:
        join_mps(mps)
    prepare_process(threads)
    storage = trial_storage(root, store)
    paths = SweepPaths(storage.root)
    run = replace(asked, folder=paths.rerun(asked.trial, asked.index))
    with exit_when_silent(bound_sec) as alive:

        def ticked() -> None:
            alive()
            storage.give(run.folder)

        try:
            dataset, evaluator = get_shared(lent)
            for folder in (paths.code, paths.trial(run.trial), run.folder):
                storage.take(folder)
            use_code(paths.code)
            if run.index:
                retrain(
                    paths.trial(run.trial), run, kimg, dataset, evaluator,
                    device=worker_device(), threads=threads, should_stop=storage.stopped, each=ticked,
                )  # fmt: skip
        except GansweepError as error:
            return replace(asked, problem=str(error))
        alive()
        n = samples_of(evaluator, config.final_samples)
        found = measure_finalist(run, dataset, evaluator, n=n, seed=config.seed, device=worker_device())
    return replace(found, folder=asked.folder)
