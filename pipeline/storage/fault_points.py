"""Named points at which a test ends a process as SIGKILL or a power cut would.

    GANSWEEP_KILL_AT=packed gansweep run ...

Without the variable a point does nothing.
"""

from __future__ import annotations

import os
import signal

from pipeline.errors import ConfigError, nearest

VARIABLE = "GANSWEEP_KILL_AT"

FAULT_POINTS = {
    "searched": "all trials have ended",
    "finalist": "one finalist is measured",
    "measured": "summary.json has the finalists",
    "packed": "the champion is packed into files",
    "card": "its model card is written",
    "logged": "MLflow has its files, the registry no version",
    "version": "the registry has a version without an alias",
    "candidate": "the version is candidate",
    "champion": "the version is champion; why is not noted",
    "registered": "summary.json has the version",
    "reported": "report.html is written",
    "ended": "the event log has the end of the sweep, MLflow has not",
    "sent": "MLflow has everything",
    "finished": "summary.json says finished, the lock is held",
}
"""The end of a sweep in its order: what is done, and nothing after it, when the process dies."""


def reach(name: str) -> None:
    """End this process with SIGKILL where $GANSWEEP_KILL_AT names this point."""
    assert name in FAULT_POINTS
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)


def check_fault_point() -> None:
    """ConfigError where $GANSWEEP_KILL_AT names no point."""
    name = os.environ.get(VARIABLE)
    if name and name not in FAULT_POINTS:
        raise ConfigError(
            f"{VARIABLE}={{seen}} is no fault point", seen=name, fix=nearest(name, FAULT_POINTS)
        )
