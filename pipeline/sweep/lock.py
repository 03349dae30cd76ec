"""The lock of a sweep's folder: one process works on it.

Owns: who holds it. Refuses: looking into the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator

from pipeline.config import SweepPaths
from pipeline.errors import SweepError


@contextlib.contextmanager
def held(paths: SweepPaths) -> Iterator[None]:
    """Hold the sweep's folder; a second process is told who does. The kernel lets go when a process dies.

    Raises:
        SweepError: another process holds it.
    """
    with paths.lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise SweepError(
                "one process works on a sweep",
                seen=f"{paths.root.name} held by {file.read().strip() or 'another'}",
                fix="wait for it, or stop it",
            ) from error
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield
