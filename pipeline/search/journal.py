"""The study's file: Optuna's journal, made to survive a kill and a full disk.

Owns: `Journal`. Refuses: knowing what the lines mean.

Optuna's own backend waits 30 seconds for the lock of a process that was killed, cannot read a journal any
more in which a torn line is followed by another one, and takes a lock, brings each line to the platter and
reads it back: a millisecond a line, at sixteen lines a trial. One process at a time writes here (the sweep's
lock), so it needs none of that, and what a dead one left behind can be mended when the file is opened.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from pipeline.storage.files import DiskSpace, append_bytes

_LOCK = ".lock"
_BLOCK = 65_536
_SYNC_SEC = 1.0
"""A kill loses no line; a power cut loses those of the last second, which the trials' records outlive."""


class SweepJournal(JournalFileBackend):
    """A journal file whose lines wait in memory while the disk is full; the study goes on meanwhile."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        repair_journal(path)
        super().__init__(str(path))
        self._path = path
        self._space = DiskSpace("the search is remembered in memory")
        self._held: list[bytes] = []
        self._own: list[dict[str, Any]] = []  # lines of this process that Optuna has not yet read back
        self._first = path.read_bytes().count(b"\n")  # the number of the first of them
        self._synced = time.monotonic()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """The lines from a number on: this process's own from memory, those before from the file."""
        if log_number_from < self._first:
            yield from itertools.islice(super().read_logs(log_number_from), self._first - log_number_from)
        elif not self._held:  # then the file has all that is forgotten here
            del self._own[: log_number_from - self._first]
            self._first = log_number_from
        yield from self._own[max(0, log_number_from - self._first) :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write the lines that wait and these, all or none of them."""
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        self._own += [json.loads(line) for line in lines]  # as another process will read them
        self._held += [line.encode() for line in lines]
        with self._space.awaited():
            append_bytes(self._path, b"".join(self._held))
            self._held = []
            self._sync()

    def _sync(self) -> None:
        if time.monotonic() - self._synced < _SYNC_SEC:
            return
        with open(self._path, "rb") as file:
            os.fsync(file.fileno())
        self._synced = time.monotonic()


def repair_journal(path: Path) -> None:
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
