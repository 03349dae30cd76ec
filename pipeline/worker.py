"""Ray on one side, `pipeline.trial.run` and `pipeline.finals` on the other; nothing in between.

Owns: the report dictionary. Refuses: any decision on training.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray import tune

from pipeline import finals
from pipeline.config import SweepConfig, SweepPaths, TrialConfig
from pipeline.errors import GansweepError
from pipeline.networks import use_code
from pipeline.node import Lent, borrow, device, join_mps, task
from pipeline.notice import Notice, leave
from pipeline.process import ending_silence, prepare_process
from pipeline.records import PENALTY
from pipeline.resources import Share
from pipeline.seeds import seed_of
from pipeline.stores import workplace
from pipeline.trial import run


def train(
    asked: dict[str, Any],
    *,
    fixed: dict[str, Any],
    root: str,
    threads: int,
    lent: Lent,
    store: str = "",
    mps: int = 0,
) -> None:
    """Run the trial that was asked for, reporting each record; the folder of a number is its memory.

    asked: {"number", "params"} from the searcher. fixed: the space's fixed values and the sweep's seed.
    store: the address of a sweep that lives in one; its trials give it each record before they report it.
    mps: how many trials share its GPU by `pipeline.mps`, 0 = none.
    """
    # Ray's object store lends read-only memory; torch warns, although no trial writes to its images.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    number, said, here = asked["number"], list[str](), ray.get_runtime_context().get_node_id()
    if mps:
        join_mps(mps, said.append)
    try:
        dataset, evaluator = borrow(lent)
        config = TrialConfig.from_dict({**fixed, **asked["params"], "seed": seed_of(fixed["seed"], number)})
        place = workplace(root, store)
        paths = SweepPaths(place.root)
        folder = paths.trial(number)
        place.take(paths.code)
        place.take(folder)
        use_code(paths.code)
        with Notice(here) as notice:
            trial = run(
                config,
                dataset,
                evaluator,
                folder,
                number=number,
                device=device(),
                threads=threads,
                should_stop=lambda: notice.given() or place.stopped(),
                say=said.append,
            )
            over = False
            for record in trial:
                place.give(folder, said.append)
                news = {"record": record, "said": said.copy(), "node": here}
                tune.report({"objective": record.objective, **news})
                said.clear()
                over = record.kimg == config.kimg or record.verdict == "diverged"
            if not over:
                place.give(folder, said.append)  # the tick that it was told to stop in
            if not over and notice.given():
                leave()
    except GansweepError as error:
        tune.report({"objective": PENALTY, "failure": str(error)})


def finalists(
    asked: Sequence[tuple[finals.Run, int]],
    paths: SweepPaths,
    config: SweepConfig,
    lent: Lent,
    share: Share,
    *,
    bounds: Mapping[int, float],
    store: str = "",
    mps: int = 0,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> list[finals.Run]:
    """Carry out each run (and its kimg) as a Ray task, a share each; none of them if stopped.

    bounds: by trial, for how many seconds its run may show no progress before its worker ends. mps: as of
    `train`.
    """
    known = {"root": str(paths.root), "store": store, "config": config, "lent": lent, "mps": mps}
    known["threads"] = share.threads
    one = task(_finalist, share.gpus).options(**share.task_options)
    waiting, runs = list(asked), []
    running: dict[Any, finals.Run] = {}
    while waiting or running:
        while waiting and len(running) < share.concurrency:
            run, kimg = waiting.pop(0)
            work = one.remote(run, kimg, bound_sec=bounds[run.trial], **known)
            running[work] = run
        for work in ray.wait(list(running), timeout=0.5)[0]:
            runs.append(_result(work, running.pop(work)))
            say(_line(runs[-1]))
        if should_stop():
            return []
    return runs


def _result(work: Any, asked: finals.Run) -> finals.Run:
    try:
        run: finals.Run = ray.get(work)
    except ray.exceptions.RayError as error:  # the worker died, more often than Ray tries again
        return replace(asked, problem=str(error).strip().splitlines()[-1][:500])
    return run


def _line(run: finals.Run) -> str:
    name = f"finalist {run.trial}" + (f", seed {run.index}" if run.index else "")
    if run.measurement is None:
        return f"{name}: {run.problem}"
    found = run.measurement
    return f"{name}: fid {found.fid:.4g} in [{found.fid_low:.4g}, {found.fid_high:.4g}] of {found.n} samples"


def _finalist(
    asked: finals.Run,
    kimg: int,
    *,
    bound_sec: float,
    root: str,
    store: str,
    config: SweepConfig,
    threads: int,
    lent: Lent,
    mps: int,
) -> finals.Run:
    """Train the run where it is another seed of its trial, and measure it."""
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    if mps:
        join_mps(mps, print)  # into the worker's log: the search has told it
    prepare_process(threads)
    place = workplace(root, store)
    paths = SweepPaths(place.root)
    run = replace(asked, folder=paths.rerun(asked.trial, asked.index))
    with ending_silence(bound_sec) as alive:

        def ticked() -> None:
            alive()
            place.give(run.folder)

        try:
            dataset, evaluator = borrow(lent)
            for folder in (paths.code, paths.trial(run.trial), run.folder):
                place.take(folder)
            use_code(paths.code)
            if run.index:
                finals.retrain(
                    paths.trial(run.trial), run, kimg, dataset, evaluator,
                    device=device(), threads=threads, should_stop=place.stopped, each=ticked,
                )  # fmt: skip
        except GansweepError as error:
            return replace(asked, problem=str(error))
        alive()
        n = finals.samples_of(evaluator, config.final_samples)
        found = finals.measure(run, dataset, evaluator, n=n, seed=config.seed, device=device())
    return replace(found, folder=asked.folder)
