"""How many trials share a GPU, and the rows of a dry run: by profiling the space's largest trial."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.cluster.gpu_sharing import MpsSharing
from pipeline.cluster.profiling import profile_alone, profile_shared
from pipeline.cluster.shared_objects import SharedRefs
from pipeline.config import SweepConfig, TrialConfig
from pipeline.search import budgets
from pipeline.search.resources import (
    MAX_WITHOUT_MPS,
    MIN_PACKING_GAIN,
    Cluster,
    TrialResources,
    concurrency,
    fastest_packing,
    gpu_fraction,
    tick_for_gpu,
    trial_resources,
    trials_per_gpu,
    trials_that_fit,
    wanted_trials_per_gpu,
)
from pipeline.search.space.definition import Space
from pipeline.search.space.largest import largest_config
from pipeline.storage.readable import readable_duration, readable_memory
from pipeline.training.profiling import TrialProfile
from pipeline.training.trial_speed import TrialSpeed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packing:
    """The resources of each trial, and what was measured to choose them; None = not measured.

    profile: of the largest trial alone; a text is the reason why there is none. speed: with as many trials on
    one GPU as there will be.
    """

    resources: TrialResources
    profile: TrialProfile | str | None = None
    speed: TrialSpeed | None = None


def choose_packing(
    config: SweepConfig, space: Space, cluster: Cluster, shared_refs: SharedRefs, sharing: MpsSharing
) -> Packing:
    """Choose each trial's resources; with --gpus-per-trial auto on GPUs, by measured trials per hour.

    sharing: is begun where trials share a GPU.
    """
    resources = trial_resources(config, cluster)
    if resources.shares_gpu:
        reason = sharing.begin()
        if reason:
            log.warning(f"trials that share a GPU take turns on it: {reason}")
        return Packing(resources)
    if config.gpus_per_trial >= 0 or not resources.gpus:
        return Packing(resources)
    log.info("packing: measuring the largest trial alone on a GPU")
    largest = largest_config(space)
    profile = profile_alone(largest, shared_refs, resources)
    if not isinstance(profile, str) and not profile.device_bytes:
        profile = "torch sees no GPU where Ray has one"
    if isinstance(profile, str):
        log.info(f"packing: {profile}: one GPU each")
        return Packing(resources, profile)
    most = _most_per_gpu(config, cluster, resources, profile, sharing)
    if most == 1:
        return Packing(resources, profile, profile.speed)

    def measure(trials: int) -> TrialSpeed | str:
        log.info(f"packing: measuring {trials} at a time on one GPU")
        return profile_shared(largest, shared_refs, resources, trials, sharing.works, profile.eval_seconds)

    best = _fastest(profile.speed, most, largest, measure, " (MPS)" * sharing.works)
    resources = replace(resources, gpus=gpu_fraction(best.trials))
    resources = replace(resources, concurrency=concurrency(config, resources, cluster))
    return Packing(resources, profile, best)


def _most_per_gpu(
    config: SweepConfig,
    cluster: Cluster,
    resources: TrialResources,
    profile: TrialProfile,
    sharing: MpsSharing,
) -> int:
    """How many trials of the sweep could share one GPU: by memory, cores, MPS, and how many there are."""
    node = max(cluster.nodes, key=lambda node: trials_that_fit(node, resources.bundle))
    cores = node.get("CPU", 0.0) / max(node.get("GPU", 1.0), 1.0)
    wanted = wanted_trials_per_gpu(config, cluster)
    fit = trials_per_gpu(profile.memory_bytes, profile.device_bytes, cores, resources.cpus)
    if min(fit, wanted) == 1:
        reason = "there are no more trials than GPUs" if wanted == 1 else f"{cores:g} cores for each GPU"
        takes = f"the largest trial takes {readable_memory(profile.memory_bytes)} on {_device(profile)}"
        log.info(f"packing: one GPU each: {takes}, {reason}")
        return 1
    reason = sharing.begin()
    if reason:
        turns = f"they take turns on it without MPS: {reason}"
        log.warning(f"at most {MAX_WITHOUT_MPS} trials per GPU, for {turns}")
    return min(fit, wanted, MAX_WITHOUT_MPS if reason else fit)


def _fastest(
    alone: TrialSpeed, most: int, config: TrialConfig, measure: Callable[[int], TrialSpeed | str], suffix: str
) -> TrialSpeed:
    """The best of one, `most` and `most // 2` trials at a time; what cannot be measured is left out.

    measure: the speed of a number of trials, or the reason why there is none. suffix: of the line in the log.
    """
    speeds = [alone]
    for trials in dict.fromkeys((most, most // 2)):
        # Half as many make at best half as many times the trials per hour of one alone.
        hopeless = speeds[-1].per_hour(config) >= MIN_PACKING_GAIN * trials * alone.per_hour(config)
        if trials < 2 or (len(speeds) > 1 and hopeless):
            continue
        found = measure(trials)
        if isinstance(found, str):
            log.info(f"packing: not {trials} at a time: {found}")
        else:
            speeds.append(found)
    best = fastest_packing(speeds, config)
    gains = {speed.trials: speed.per_hour(config) / alone.per_hour(config) for speed in speeds[1:]}
    if best is not alone:
        made = f"{best.trials} trials at a time make {gains[best.trials]:.2g} times"
        log.info(f"packing: {made} the trials per hour of one: {best.trials} per GPU{suffix}")
    elif gains:
        tried = ", ".join(f"{trials} at a time make {gain:.2g}" for trials, gain in gains.items())
        log.info(f"packing: {tried} times the trials per hour of one: one GPU each")
    return best


def estimate_rows(
    config: SweepConfig, space: Space, cluster: Cluster, shared_refs: SharedRefs, sharing: MpsSharing
) -> list[tuple[str, str]]:
    """Rows (name, text) of a dry run: resources, the largest trial, hours, cost; arguments as above."""
    packing = choose_packing(config, space, cluster, shared_refs, sharing)
    resources, profile, largest = packing.resources, packing.profile, largest_config(space)
    if profile is None:
        mps = resources.per_gpu if sharing.works else 0
        profile = profile_alone(largest, shared_refs, resources, mps)
    rows = [("resources", f"trials at a time: {resources.concurrency}, each {resources}; {cluster}")]
    if isinstance(profile, str):
        return [*rows, ("measured", f"nothing: {profile}")]
    speed = packing.speed or profile.speed
    tick = tick_for_gpu(space.config({}).tick_kimg, largest.kimg, packing.speed)
    hours = speed.seconds(replace(largest, tick_kimg=tick)) / 3600
    per_kimg = f"{speed.seconds_per_kimg:.3g} s per kimg, {speed.eval_seconds:.2g} s per fid"
    at_a_time = f", {speed.trials} at a time on one GPU" if speed.trials > 1 else ""
    return [
        *rows,
        ("memory", f"{readable_memory(profile.memory_bytes)} per trial at most, on {_device(profile)}"),
        ("largest trial", f"{readable_duration(3600 * hours)}: {per_kimg}{at_a_time}"),
        ("reports", f"every {tick} kimg"),
        ("at most", _upper_bound(config, resources, hours)),
    ]


def _upper_bound(config: SweepConfig, resources: TrialResources, hours: float) -> str:
    """Wall time, GPU hours and cost if every trial took `hours`; at most the time budget, if any."""
    total = config.trials * hours
    if config.time_budget_sec:
        total = min(total, config.time_budget_sec / 3600 * resources.concurrency)
    wall = total / min(resources.concurrency, config.trials)
    prices = budgets.parse_prices(config.price)
    cost = total * budgets.hourly_price(prices, resources.cpus, resources.gpus)
    money = f", at a cost of {cost:.4g}" if prices else ""
    gpus = f", {total * resources.gpus:.3g} GPU hours" if resources.gpus else ""
    return f"{readable_duration(3600 * wall)} if no trial stops early{gpus}{money}"


def _device(profile: TrialProfile) -> str:
    return f"{profile.device} ({readable_memory(profile.device_bytes)})" if profile.device_bytes else "cores"
