"""Ray on one side, `pipeline.trial.run` and `pipeline.finals` on the other; nothing in between.

Owns: the report dictionary. Refuses: any decision on training.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from pipeline import finals
from pipeline.config import SweepConfig, SweepPaths, TrialConfig
from pipeline.errors import GansweepError
from pipeline.networks import use_code
from pipeline.node import Lent, borrow, device
from pipeline.process import prepare_process
from pipeline.records import PENALTY
from pipeline.resources import Share
from pipeline.trial import run, seed_of


def train(asked: dict[str, Any], *, fixed: dict[str, Any], root: str, threads: int, lent: Lent) -> None:
    """Run the trial that was asked for, reporting each record; the folder of a number is its memory.

    asked: {"number", "params"} from the searcher. fixed: the space's fixed values and the sweep's seed.
    """
    # Ray's object store lends read-only memory; torch warns, although no trial writes to its images.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    number, said, here = asked["number"], list[str](), ray.get_runtime_context().get_node_id()
    try:
        dataset, evaluator = borrow(lent)
        config = TrialConfig.from_dict({**fixed, **asked["params"], "seed": seed_of(fixed["seed"], number)})
        paths = SweepPaths(Path(root))
        use_code(paths.code)
        trial = run(
            config,
            dataset,
            evaluator,
            paths.trial(number),
            number=number,
            device=device(),
            threads=threads,
            should_stop=paths.stop.exists,
            say=said.append,
        )
        for record in trial:
            news = {"record": record, "said": said.copy(), "node": here}
            tune.report({"objective": record.objective, **news})
            said.clear()
    except GansweepError as error:
        tune.report({"objective": PENALTY, "failure": str(error)})


def finalists(
    asked: Sequence[tuple[finals.Run, int]],
    paths: SweepPaths,
    config: SweepConfig,
    lent: Lent,
    share: Share,
    *,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> list[finals.Run]:
    """Carry out each run (and its kimg) as a Ray task, a share each; none of them if stopped."""
    asks = {"num_cpus": share.cpus, "num_gpus": share.gpus, "resources": dict(share.extra)}
    task = ray.remote(_finalist).options(**asks)
    known = {"paths": paths, "config": config, "threads": max(1, int(share.cpus)), "lent": lent}
    waiting, runs = list(asked), []
    running: dict[Any, finals.Run] = {}
    while waiting or running:
        while waiting and len(running) < share.concurrency:
            run, kimg = waiting.pop(0)
            running[task.remote(run, kimg, **known)] = run
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
    asked: finals.Run, kimg: int, *, paths: SweepPaths, config: SweepConfig, threads: int, lent: Lent
) -> finals.Run:
    """Train the run where it is another seed of its trial, and measure it."""
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    prepare_process(threads)
    try:
        dataset, evaluator = borrow(lent)
        use_code(paths.code)
        if asked.index:
            finals.retrain(
                paths.trial(asked.trial), asked, kimg, dataset, evaluator,
                device=device(), threads=threads, should_stop=paths.stop.exists,
            )  # fmt: skip
    except GansweepError as error:
        return replace(asked, problem=str(error))
    n = finals.samples_of(evaluator, config.final_samples)
    return finals.measure(asked, dataset, evaluator, n=n, seed=config.seed, device=device())
