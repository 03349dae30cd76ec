"""Profiling the largest trial of a space in Ray's workers: alone, and several of it on one GPU.

What is measured is `pipeline.training.profiling`, what follows from it `pipeline.cluster.packing`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from pipeline.cluster.shared_objects import SharedRefs, enter_worker, get_shared, worker_device
from pipeline.cluster.tasks import gpu_task, placement, result_of
from pipeline.config import TrialConfig
from pipeline.search.resources import TrialResources, gpu_fraction
from pipeline.training.profiling import (
    SharedGpuSample,
    TrialProfile,
    combined_speed,
    profile_sharing_gpu,
    profile_trial,
    profiling_failure,
)
from pipeline.training.trial_speed import TrialSpeed

CPU_WAIT_SEC, GPU_WAIT_SEC = 90.0, 180.0
"""Seconds in which one trial alone must have been measured, the start of its process included."""

PLACE_SEC, READY_SEC, WINDOW_SEC = 20.0, 60.0, 3.0
"""Seconds for several at a time: until they have a GPU, until all are warmed up, and of training then."""

_LEAD_SEC = 0.2
"""Seconds from the moment the last one is warmed up until all begin."""


def profile_alone(
    config: TrialConfig, shared_refs: SharedRefs, resources: TrialResources, mps: int = 0
) -> TrialProfile | str:
    """Profile one trial on a machine of the cluster that holds it; a text is the reason why there is none.

    mps: how many trials are to share its GPU by `pipeline.cluster.mps`, 0 = no MPS.
    """
    limit = GPU_WAIT_SEC if resources.gpus else CPU_WAIT_SEC
    task = gpu_task(_measure).options(**resources.task_options, max_retries=0)
    call = task.remote(config, shared_refs, resources.threads, mps)
    if not ray.wait([call], timeout=limit)[0]:
        ray.cancel(call, force=True)
        return f"within {limit:g} s no machine was free for a trial, or it took longer"
    profile: TrialProfile | str = result_of(call, _died)
    return profile


def profile_shared(
    config: TrialConfig,
    shared_refs: SharedRefs,
    resources: TrialResources,
    trials: int,
    with_mps: bool,
    eval_sec: float,
) -> TrialSpeed | str:
    """The speed of `trials` copies of a trial at a time on one GPU; a text is the reason why there is none.

    resources, eval_sec: of one trial that has the GPU alone, and the seconds of its fid. with_mps: whether
    they share the GPU by `pipeline.cluster.mps`.
    """
    amounts = {name: amount * trials for name, amount in resources.bundle.items() if name != "GPU"}
    with placement({**amounts, "GPU": 1.0}) as group:
        if not group.wait(PLACE_SEC):
            return f"no GPU with {resources.cpus * trials:g} cores was free within {PLACE_SEC:g} s"
        here = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        gate = ray.remote(_Gate).options(num_cpus=0, scheduling_strategy=here).remote(trials)
        options = replace(resources, gpus=gpu_fraction(trials)).task_options
        task = gpu_task(_measure).options(**options, scheduling_strategy=here, max_retries=0)
        arguments = config, shared_refs, resources.threads, trials if with_mps else 0, gate
        limit = READY_SEC + WINDOW_SEC + 2 * trials * eval_sec
        return _joint_speed([task.remote(*arguments) for _ in range(trials)], limit)


def _joint_speed(calls: list[Any], limit: float) -> TrialSpeed | str:
    """The speed of all together, once each has reported; the reason why not, as soon as one fails."""
    until, waiting, samples = time.monotonic() + limit, calls, list[SharedGpuSample]()
    while waiting:
        done, waiting = ray.wait(waiting, timeout=max(0.0, until - time.monotonic()))
        if not done:
            return f"{len(waiting)} of {len(calls)} were not ready within {limit:.0f} s"
        for call in done:
            sample = result_of(call, _died)
            if isinstance(sample, str):
                return sample
            samples.append(sample)
    if not all(sample.images for sample in samples):
        return f"one of {len(calls)} trained no step in {WINDOW_SEC:g} s"
    return combined_speed(samples)


def _died(reason: str) -> str:
    return f"the process that measured a trial died: {reason}"


def _measure(
    config: TrialConfig, shared_refs: SharedRefs, threads: int, mps: int, gate: Any = None
) -> TrialProfile | SharedGpuSample | str:
    """Runs in a worker's process, as a trial would; a text is the reason why the trial failed.

    gate: where several are measured, lets all of them begin together.
    """

    def ready() -> float:
        return float(ray.get(gate.ready.remote()))

    enter_worker(mps)
    try:
        arguments = (config, *get_shared(shared_refs), worker_device(), threads)
        if gate is None:
            return profile_trial(*arguments)
        return profile_sharing_gpu(*arguments, ready, WINDOW_SEC)
    except Exception as error:  # of torch, the driver, or the user's code
        return profiling_failure(error, worker_device())


class _Gate:
    """A barrier for `count` callers, as a Ray actor on their machine, whose clock it shares with them."""

    def __init__(self, count: int) -> None:
        self._missing, self._open, self._begin = count, asyncio.Event(), 0.0

    async def ready(self) -> float:
        """Wait for all callers; returns the moment (of `time.time`) at which all begin."""
        self._missing -= 1
        if self._missing == 0:
            self._begin = time.time() + _LEAD_SEC
            self._open.set()
        await self._open.wait()
        return self._begin
