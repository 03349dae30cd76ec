"""NVIDIA's MPS on the machines of a sweep whose trials share GPUs: one daemon each, while the sweep runs.

Not for the daemon itself (`pipeline.cluster.mps`), nor for how many trials share a GPU (`packing`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Self

from pipeline.cluster import mps
from pipeline.cluster.connection import LOCAL

_NODES_SEC = 60.0
"""How long machines may take to answer, the start of a process on each included."""


class MpsSharing:
    """A context with MPS from the call of `begin` (if any) to its end. Enter it before a local Ray starts.

    works: whether some machine has MPS, so that trials should look for it.
    """

    def __init__(self, address: str) -> None:
        self._address, self._begun = address, False
        self.works = False

    def begin(self) -> str:
        """Have a daemon on every machine with a GPU; returns why one machine has none, or an empty text.

        On machines that are added later their first trial starts it.
        """
        self._begun = True
        reasons = [mps.start()] if self._address == LOCAL else _on_gpu_machines(mps.start)
        self.works = not reasons or not all(reasons)  # no machine yet: those that are added try it
        return next(filter(None, reasons), "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun and self._address == LOCAL:
            mps.stop()
        elif self._begun:
            with contextlib.suppress(Exception):  # the cluster may be gone, and its daemons with it
                _on_gpu_machines(mps.stop)


def _on_gpu_machines(function: Callable[[], Any]) -> list[Any]:
    """Call the function in a new process on each machine with a GPU.

    Returns what each call returned; for a call that failed, the reason as text.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from pipeline.cluster.shared_objects import gpu_task

    calls = {
        gpu_task(function)
        .options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(machine["NodeID"], soft=False),
        )
        .remote(): machine["NodeManagerAddress"]
        for machine in ray.nodes()
        if machine["Alive"] and machine["Resources"].get("GPU")
    }
    done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=_NODES_SEC) if calls else ([], [])
    return [_result(call) if call in done else f"{where}: no answer" for call, where in calls.items()]


def _result(call: Any) -> Any:
    import ray

    try:
        return ray.get(call)
    except ray.exceptions.RayError as error:
        return str(error).strip().splitlines()[-1][:300]
