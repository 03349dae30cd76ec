"""The largest trial of a space, measured on the machines that trials run on: alone, and several on one GPU.

Owns: the Ray tasks that measure, and how long they may take. Refuses: what is measured
(`pipeline.training.profiling`), what follows from it (`pipeline.cluster.packing`).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.cluster import shared_objects
from pipeline.config import TrialConfig
from pipeline.search.resources import TrialResources, gpu_share
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
"""How long one trial alone may take to be measured, the start of its process included."""

PLACE_SEC, READY_SEC, WINDOW_SEC = 20.0, 60.0, 3.0
"""For several at a time: until they have a GPU, until all of them are warm, and how long they train then."""

_LEAD_SEC = 0.2
"""From the moment the last one is warm until all begin."""


def profile_alone(
    config: TrialConfig, code: Path | None, lent: Any, share: TrialResources, mps: int = 0
) -> TrialProfile | str:
    """The largest trial, `config`, on a machine of the cluster that holds a share; a text says why it was not.

    mps: how many trials are to share its GPU by `pipeline.cluster.mps`, 0 = none.
    """
    import ray

    limit = GPU_WAIT_SEC if share.gpus else CPU_WAIT_SEC
    work = (
        shared_objects.gpu_task(_measure)
        .options(**share.task_options, max_retries=0)
        .remote(config, lent, share.threads, code, mps)
    )
    done, _ = ray.wait([work], timeout=limit)
    if not done:
        ray.cancel(work, force=True)
        return f"within {limit:g} s no machine was free for a trial, or it took longer"
    found: TrialProfile | str = _got(work)
    return found


def profile_shared(
    config: TrialConfig,
    code: Path | None,
    lent: Any,
    share: TrialResources,
    trials: int,
    with_mps: bool,
    eval_sec: float,
) -> TrialSpeed | str:
    """The pace of the largest trial, so many at a time on one GPU; a text says why there is none.

    share: of one trial that has the GPU alone. eval_sec: what a fid takes it then.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    amounts = {name: amount * trials for name, amount in share.bundle.items() if name != "GPU"}
    group = placement_group([{**amounts, "GPU": 1.0}])
    try:
        if not group.wait(PLACE_SEC):
            return f"no GPU with {share.cpus * trials:g} cores was free within {PLACE_SEC:g} s"
        here = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        gate = ray.remote(_Gate).options(num_cpus=0, scheduling_strategy=here).remote(trials)
        task = shared_objects.gpu_task(_accompany).options(
            **replace(share, gpus=gpu_share(trials)).task_options,
            scheduling_strategy=here,
            max_retries=0,
        )
        mps = trials if with_mps else 0
        asked = config, lent, share.threads, code, mps
        limit = READY_SEC + WINDOW_SEC + 2 * trials * eval_sec
        return _joined([task.remote(*asked, gate, WINDOW_SEC) for _ in range(trials)], limit)
    finally:
        remove_placement_group(group)  # ends what still runs in it


def _joined(work: list[Any], limit: float) -> TrialSpeed | str:
    """The pace of all together, once each has reported; why not, as soon as one fails."""
    import ray

    until, waiting, stretches = time.monotonic() + limit, work, list[SharedGpuSample]()
    while waiting:
        done, waiting = ray.wait(waiting, timeout=max(0.0, until - time.monotonic()))
        if not done:
            return f"{len(waiting)} of {len(work)} were not ready within {limit:.0f} s"
        for one in done:
            found = _got(one)
            if isinstance(found, str):
                return found
            stretches.append(found)
    if not all(stretch.images for stretch in stretches):
        return f"one of {len(work)} trained no step in {WINDOW_SEC:g} s"
    return combined_speed(stretches)


def _got(work: Any) -> Any:
    """What a task returned; a text where its process died."""
    import ray

    try:
        return ray.get(work)
    except ray.exceptions.RayError as error:
        return f"the process that measured a trial died: {str(error).strip().splitlines()[-1][:300]}"


def _measure(config: TrialConfig, lent: Any, threads: int, code: Path | None, mps: int) -> TrialProfile | str:
    """Runs in a worker's process, as a trial would; a text is why the trial failed."""
    from pipeline.training.networks.custom import use_code

    if mps:
        shared_objects.join_mps(mps)
    use_code(code)
    try:
        dataset, evaluator = shared_objects.get_shared(lent)
        return profile_trial(config, dataset, evaluator, shared_objects.worker_device(), threads)
    except Exception as error:  # of torch, the driver, or networks of the user's own
        return profiling_failure(error, shared_objects.worker_device())


def _accompany(
    config: TrialConfig,
    lent: Any,
    threads: int,
    code: Path | None,
    mps: int,
    gate: Any,
    seconds: float,
) -> SharedGpuSample | str:
    """The same beside others, whom it waits for at the gate."""
    import ray

    from pipeline.training.networks.custom import use_code

    if mps:
        shared_objects.join_mps(mps)
    use_code(code)

    def ready() -> float:
        return float(ray.get(gate.ready.remote()))

    try:
        dataset, evaluator = shared_objects.get_shared(lent)
        return profile_sharing_gpu(
            config, dataset, evaluator, shared_objects.worker_device(), threads, ready, seconds
        )
    except Exception as error:
        return profiling_failure(error, shared_objects.worker_device())


class _Gate:
    """Lets `count` callers pass once all of them are there. On their machine: its clock is theirs."""

    def __init__(self, count: int) -> None:
        self._missing, self._open, self._begin = count, asyncio.Event(), 0.0

    async def ready(self) -> float:
        """The moment (of `time.time`) at which all begin."""
        self._missing -= 1
        if self._missing == 0:
            self._begin = time.time() + _LEAD_SEC
            self._open.set()
        await self._open.wait()
        return self._begin
