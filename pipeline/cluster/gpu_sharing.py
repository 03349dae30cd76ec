"""NVIDIA's MPS on the machines of a sweep whose trials share GPUs.

Owns: that a daemon runs on each machine with a GPU, and that those which were started end with the sweep.
Refuses: the daemon itself (`pipeline.cluster.mps`), who shares a GPU.
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
    """MPS from `begin`, if that is called, to the end of the block, which lies outside of a local Ray's.

    works: some machine has it, so that trials should look for it.
    """

    def __init__(self, address: str) -> None:
        self._address, self._begun = address, False
        self.works = False

    def begin(self) -> str:
        """Have a daemon on every machine with a GPU; returns why one has none, or an empty text.

        Machines that are added later get theirs from their first trial.
        """
        self._begun = True
        why = [mps.start()] if self._address == LOCAL else _on_gpu_machines(mps.start)
        self.works = not why or not all(why)  # no machine yet: those that are added try it
        return next(filter(None, why), "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun and self._address == LOCAL:
            mps.stop()
        elif self._begun:
            with contextlib.suppress(Exception):  # a cluster that is gone: so are its daemons' clients
                _on_gpu_machines(mps.stop)


def _on_gpu_machines(function: Callable[[], Any]) -> list[Any]:
    """What the function returns on each, in a process of its own there; of one that fails, why."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from pipeline.cluster import shared_objects

    asked = {
        shared_objects.gpu_task(function)
        .options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(machine["NodeID"], soft=False),
        )
        .remote(): machine["NodeManagerAddress"]
        for machine in ray.nodes()
        if machine["Alive"] and machine["Resources"].get("GPU")
    }
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_NODES_SEC) if asked else ([], [])
    return [_answer(work) if work in done else f"{where}: no answer" for work, where in asked.items()]


def _answer(work: Any) -> Any:
    import ray

    try:
        return ray.get(work)
    except ray.exceptions.RayError as error:
        return str(error).strip().splitlines()[-1][:300]
