"""What a sweep would take: its largest trial is measured where trials run, before any of them does.

Owns: the rows of a dry run, how many trials share a GPU. Refuses: training a trial.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cluster.gpu_sharing import MpsSharing
from pipeline.cluster.profiling import profile_alone, profile_shared
from pipeline.config import SweepConfig, TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics import frechet
from pipeline.search import budgets
from pipeline.search.resources import (
    MOST_IN_TURNS,
    WORTH,
    Cluster,
    TrialResources,
    concurrency,
    fastest_packing,
    gpu_share,
    tick_for_gpu,
    trial_resources,
    trials_per_gpu,
    trials_that_fit,
    wanted_per_gpu,
)
from pipeline.search.space.definition import Space
from pipeline.search.space.largest import largest_config
from pipeline.training.profiling import TrialProfile
from pipeline.training.trial_speed import TrialSpeed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packing:
    """What each trial gets, and what was measured to find it.

    found: of the largest trial alone; a text says why there is nothing, None: it was not asked. pace: of as
    many on one GPU as will be.
    """

    share: TrialResources
    found: TrialProfile | str | None = None
    pace: TrialSpeed | None = None


def choose_packing(
    plan: SweepConfig, space: Space, code: Path | None, cluster: Cluster, lent: Any, sharing: MpsSharing
) -> Packing:
    """What each trial gets; with --gpus-per-trial auto on GPUs, by trials per hour, measured."""
    share = trial_resources(plan, cluster)
    if share.shares_gpu:
        why = sharing.begin()
        if why:
            log.warning(f"trials that share a GPU take turns on it: {why}")
        return Packing(share)
    if plan.gpus_per_trial >= 0 or not share.gpus:
        return Packing(share)
    log.info("packing: measuring the largest trial alone on a GPU")
    found = profile_alone(largest_config(space), code, lent, share)
    if not isinstance(found, str) and not found.device_bytes:
        found = "torch sees no GPU where Ray has one"
    if isinstance(found, str):
        log.info(f"packing: {found}: one GPU each")
        return Packing(share, found)
    most = _most(plan, cluster, share, found, sharing)
    if most == 1:
        return Packing(share, found, found.pace)

    def measure(trials: int) -> TrialSpeed | str:
        log.info(f"packing: measuring {trials} at a time on one GPU")
        return profile_shared(
            largest_config(space), code, lent, share, trials, sharing.works, found.eval_seconds
        )

    best = _fastest(found.pace, most, largest_config(space), measure, " (MPS)" * sharing.works)
    share = replace(share, gpus=gpu_share(best.trials))
    return Packing(replace(share, concurrency=concurrency(plan, share, cluster)), found, best)


def _most(
    plan: SweepConfig, cluster: Cluster, share: TrialResources, found: TrialProfile, sharing: MpsSharing
) -> int:
    """How many trials of the sweep could be on one GPU: by memory, cores, MPS, and how many there are."""
    node = max(cluster.nodes, key=lambda node: trials_that_fit(node, share.bundle))
    cores = node.get("CPU", 0.0) / max(node.get("GPU", 1.0), 1.0)
    wanted = wanted_per_gpu(plan, cluster)
    fit = trials_per_gpu(found.memory_bytes, found.device_bytes, cores, share.cpus)
    if min(fit, wanted) == 1:
        why = "there are no more trials than GPUs" if wanted == 1 else f"{cores:g} cores for each GPU"
        takes = f"the largest trial takes {_bytes(found.memory_bytes)} on {_device(found)}"
        log.info(f"packing: one GPU each: {takes}, {why}")
        return 1
    why = sharing.begin()
    if why:
        log.warning(f"at most {MOST_IN_TURNS} trials per GPU, for they take turns on it without MPS: {why}")
    return min(fit, wanted, MOST_IN_TURNS if why else fit)


def _fastest(
    alone: TrialSpeed,
    most: int,
    config: TrialConfig,
    measure: Callable[[int], TrialSpeed | str],
    how: str,
) -> TrialSpeed:
    """The best of one, `most` and half as many trials at a time; what cannot be measured is left out.

    measure: the pace of so many, or why there is none. how: what is said behind the result.
    """
    paces = [alone]
    for trials in dict.fromkeys((most, most // 2)):
        # Half as many are at best half as many times as fast as one alone.
        hopeless = paces[-1].per_hour(config) >= WORTH * trials * alone.per_hour(config)
        if trials < 2 or (len(paces) > 1 and hopeless):
            continue
        found = measure(trials)
        if isinstance(found, str):
            log.info(f"packing: not {trials} at a time: {found}")
        else:
            paces.append(found)
    best = fastest_packing(paces, config)
    gains = {pace.trials: pace.per_hour(config) / alone.per_hour(config) for pace in paces[1:]}
    if best is not alone:
        times = (
            f"{best.trials} trials at a time make {gains[best.trials]:.2g} times the trials per hour of one"
        )
        log.info(f"packing: {times}: {best.trials} per GPU{how}")
    elif gains:
        tried = ", ".join(f"{trials} at a time make {gain:.2g}" for trials, gain in gains.items())
        log.info(f"packing: {tried} times the trials per hour of one: one GPU each")
    return best


def own_tick(space: Space) -> int:
    """The interval between a trial's reports that a space says, in kimg."""
    return int(space.fixed.get("tick_kimg", TrialConfig.fields()["tick_kimg"].default))


def estimate_rows(
    plan: SweepConfig,
    space: Space,
    code: Path | None,
    dataset: Dataset,
    evaluator: frechet.Evaluator,
    cluster: Cluster,
    sharing: MpsSharing,
) -> list[tuple[str, str]]:
    """Of a dry run, on a Ray that is connected: resources, the largest trial, hours and cost."""
    from pipeline.cluster import shared_objects

    lent = shared_objects.put_shared(dataset, evaluator)
    packing = choose_packing(plan, space, code, cluster, lent, sharing)
    share, found = packing.share, packing.found
    if found is None:
        found = profile_alone(largest_config(space), code, lent, share, share.per_gpu if sharing.works else 0)
    told = [("resources", f"trials at a time: {share.concurrency}, each {share}; {cluster}")]
    if isinstance(found, str):
        return [*told, ("measured", f"nothing: {found}")]
    pace, full = packing.pace or found.pace, largest_config(space)
    tick = tick_for_gpu(own_tick(space), full.kimg, packing.pace)
    one = pace.seconds(replace(full, tick_kimg=tick)) / 3600
    speed = f"{pace.seconds_per_kimg:.3g} s per kimg, {pace.eval_seconds:.2g} s per fid"
    company = f", {pace.trials} at a time on one GPU" if pace.trials > 1 else ""
    return [
        *told,
        ("memory", f"{_bytes(found.memory_bytes)} per trial at most, on {_device(found)}"),
        ("largest trial", f"{_hours(one)}: {speed}{company}"),
        ("reports", f"every {tick} kimg"),
        ("at most", _bound(plan, share, one)),
    ]


def _bound(plan: SweepConfig, share: TrialResources, one: float) -> str:
    """If every trial were the largest and none stopped early; a bound that is met earlier ends it."""
    trials = plan.trials * one
    if plan.time_budget_sec:
        trials = min(trials, plan.time_budget_sec / 3600 * share.concurrency)
    wall = trials / min(share.concurrency, plan.trials)
    known = budgets.prices(plan.price)
    money = (
        f", at a cost of {trials * budgets.hourly_price(known, share.cpus, share.gpus):.4g}" if known else ""
    )
    gpus = f", {trials * share.gpus:.3g} GPU hours" if share.gpus else ""
    return f"{_hours(wall)} if no trial stops early{gpus}{money}"


def _hours(hours: float) -> str:
    return f"{hours:.3g} hours" if hours >= 1 else f"{60 * hours:.3g} minutes"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


def _device(found: TrialProfile) -> str:
    return f"{found.device} ({_bytes(found.device_bytes)})" if found.device_bytes else "cores"
