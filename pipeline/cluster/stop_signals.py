"""SIGINT, SIGTERM and SIGHUP of a sweep: the first stops it so that it can be resumed, the second ends it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from types import FrameType
from typing import Self

from pipeline.search.trial_manager import TrialManager

log = logging.getLogger(__name__)

INTERRUPTED = 130
"""Exit code."""


class StopSignals:
    """Handles the signals during the block, in the main thread; in another one Python takes no handlers.

    While the search runs, trials checkpoint at their next step and stop. After `searched`, KeyboardInterrupt
    is raised. After `closing`, the sweep is ending anyway. SIGHUP stays ignored under nohup.
    """

    def __init__(self, manager: TrialManager) -> None:
        self._manager = manager
        self._phase = "search"
        self._received = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            signals = [signal.SIGINT, signal.SIGTERM]
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                signals.append(signal.SIGHUP)
            self._before = {signum: signal.getsignal(signum) for signum in signals}
            # Inherited by Ray's processes: a hang-up must not end trials before they checkpoint.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
            self._install()
        return self

    def __exit__(self, *error: object) -> None:
        self.ray_started()
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def ray_started(self) -> None:
        """Install the handlers again, for Ray sets its own for SIGTERM; and take SIGHUP from now on."""
        if self._before:
            self._install()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def searched(self) -> None:
        """The search is over: from now on the first signal raises KeyboardInterrupt."""
        self._phase = "finalize"

    def closing(self) -> None:
        """The sweep is being closed: from now on the first signal does nothing."""
        self._phase = "close"

    def _install(self) -> None:
        for signum in self._before:
            signal.signal(signum, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._received and number != signal.SIGHUP:  # shell and kernel may both tell of one hang-up
            os._exit(INTERRUPTED)
        if self._received:
            return
        self._received = True
        if self._phase == "search":
            interrupt(self._manager)
            log.info("stopping: trials checkpoint and leave (again to leave at once)")
        elif self._phase == "finalize":
            raise KeyboardInterrupt
        else:
            log.info("writing what is left (again to leave at once)")


def interrupt(manager: TrialManager) -> None:
    """End the search so that it can be resumed: trials checkpoint at their next step and stop."""
    manager.interrupted, manager.reason = True, "interrupted"
    with contextlib.suppress(OSError):  # a full disk: then Ray alone stops the trials
        manager.paths.stop.touch()
