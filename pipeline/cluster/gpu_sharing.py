"""NVIDIA's MPS on the machines of a sweep whose trials share GPUs: one daemon each, while the sweep runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Self

from pipeline.cluster import mps
from pipeline.cluster.connection import LOCAL
from pipeline.cluster.tasks import alive_nodes, gpu_task, run_on_nodes

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
    """What the function returns in a new process on each machine with a GPU; a text where it fails."""
    machines = [node for node in alive_nodes() if node["Resources"].get("GPU")]
    return [answer for _, answer in run_on_nodes(gpu_task(function), machines, (), _NODES_SEC, str)]
