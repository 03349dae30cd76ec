"""The study's file: Optuna's journal, made to survive a kill and a full disk.

Owns: `Journal`. Refuses: knowing what the lines mean.

Optuna's own backend waits 30 seconds for the lock of a process that was killed, and cannot read a journal
any more in which a torn line is followed by another one. One process at a time writes here (the sweep's
lock), so what a dead one left behind can be mended when the file is opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from pipeline.files import DiskSpace

_LOCK = ".lock"
_BLOCK = 65_536


class Journal(JournalFileBackend):
    """A journal file whose lines wait in memory while the disk is full; the study goes on meanwhile."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        mend(path)
        super().__init__(str(path))
        self._path = path
        self._space = DiskSpace("the search is remembered in memory", say)
        self._held: list[dict[str, Any]] = []
        self._written = 0

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """The lines of the file from a number on, then those that wait."""
        if log_number_from < self._written or not self._held:
            yield from super().read_logs(log_number_from)
        yield from self._held[max(0, log_number_from - self._written) :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write the lines that wait and these, all or none of them."""
        if not self._held:
            self._written = max(self._log_number_offset)  # Optuna reads all lines after each write
        self._held += logs
        size = self._path.stat().st_size
        with self._space.awaited():
            try:
                super().append_logs(self._held)
            except OSError:
                os.truncate(self._path, size)
                raise
            self._held = []


def mend(path: Path) -> None:
    """Cut off a last line that is torn, and take away the lock of a process that died."""
    Path(str(path) + _LOCK).unlink(missing_ok=True)
    if not path.exists():
        return
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                file.truncate(begin + found + 1)
                return
            end = begin
        file.truncate(0)
