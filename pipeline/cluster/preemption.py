"""Notice that a machine is about to be taken away, by the nodes that Ray is draining.

Ray drains a node when asked to: by `ray start --block`, which is what a pod of Kubernetes runs, when it
gets SIGTERM (the pod has half a minute then); by the autoscaler, for machines that it gives back; and by
`ray drain-node`, called by hand or when a cloud gives notice. Ray itself only stops starting work there.
"""

from __future__ import annotations

import threading
from typing import Self

from ray.exceptions import RayActorError

from pipeline.cluster._compat import draining_nodes

_PERIOD_SEC = 1.0
PREEMPTED = "its machine is being taken away"


class PreemptionNotice:
    """Whether this process's machine is about to be taken away. Use it as a context; ask `received()`.

    A thread asks Ray once a second, so that `received` costs a training step nothing.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._draining, self._closed = threading.Event(), threading.Event()
        self.received = self._draining.is_set

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="notice", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(_PERIOD_SEC):
            if self._node in draining_nodes():
                self._draining.set()
                return


def raise_preempted() -> None:
    """Give up this trial's worker in the way that Ray does not count as a failure of the trial.

    Raises:
        RayActorError: always; Ray then takes up the trial on another node.
    """
    raise RayActorError(error_msg=PREEMPTED, preempted=True)
