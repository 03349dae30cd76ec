"""The notice that a machine is about to be taken away.

Owns: asking Ray which nodes are being drained. Refuses: what a trial makes of it (`worker`), starting and
ending machines.

Whoever takes a machine tells Ray to drain its node: `ray start --block`, which is what a pod of Kubernetes
runs, when it gets SIGTERM (it has half a minute then); the autoscaler, of what it gives back; and whoever
calls `ray drain-node`, by hand or when a cloud gives notice. Ray itself only starts nothing new there.
"""

from __future__ import annotations

import threading
from types import TracebackType

import ray
from ray.exceptions import RayActorError

_PERIOD_SEC = 1.0
PREEMPTED = "its machine is being taken away"


def draining() -> set[str]:
    """The ids of the nodes that are to go; none where this Ray tells nobody."""
    try:
        from ray._private.state import state  # what Ray Train asks; there is no public door

        return set(state.get_draining_nodes())
    except (ImportError, AttributeError, OSError, RuntimeError, ray.exceptions.RayError):
        return set()


class PreemptionNotice:
    """Whether this process's machine is to go; a thread asks once a second, so that a step only looks.

    Use as a context; `received` is the answer.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._told, self._over = threading.Event(), threading.Event()
        self.received = self._told.is_set

    def __enter__(self) -> PreemptionNotice:
        threading.Thread(target=self._watch, name="notice", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_PERIOD_SEC):
            if self._node in draining():
                self._told.set()
                return


def raise_preempted() -> None:
    """Give up this trial's worker in the way that Ray counts as no failure of the trial.

    Raises:
        RayActorError: always; Ray takes the trial up on another node then.
    """
    raise RayActorError(error_msg=PREEMPTED, preempted=True)
