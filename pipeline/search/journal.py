"""The study's file: Optuna's journal, made to survive a kill and a full disk.

Optuna's own backend waits 30 seconds for the lock of a process that was killed and cannot read a journal in
which a torn line is followed by another one. For each line it takes a lock, syncs the file and reads the line
back: a millisecond a line, at sixteen lines a trial. Here only one process writes at a time (it holds the
sweep's lock), so none of that is needed, and what a killed process left is repaired when the file is opened.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from optuna.storages.journal import JournalFileBackend

from pipeline.search._compat import JOURNAL_LOCK
from pipeline.storage.files import DiskSpace, append_bytes

_SYNC_SEC = 1.0
"""A kill loses no line; a power cut loses those of the last second (not the trials' records)."""


class SweepJournal(JournalFileBackend):
    """A journal file whose lines are kept in memory while the disk is full, so that the study can go on."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        repair_journal(path)
        super().__init__(str(path))
        self._path = path
        self._space = DiskSpace("the search is kept in memory")
        self._pending: list[bytes] = []  # lines that are not in the file yet
        self._unread: list[dict[str, object]] = []  # logs of this process that Optuna has not yet read back
        self._first = path.read_bytes().count(b"\n")  # the number of the first unread log
        self._synced = time.monotonic()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, object]]:  # type: ignore[override]
        """The logs from a number on: those of this process from memory, those before from the file."""
        if log_number_from < self._first:
            yield from itertools.islice(super().read_logs(log_number_from), self._first - log_number_from)
        elif not self._pending:  # then the file has all that is dropped here
            del self._unread[: log_number_from - self._first]
            self._first = log_number_from
        yield from self._unread[max(0, log_number_from - self._first) :]

    def append_logs(self, logs: list[dict[str, object]]) -> None:
        """Write the pending lines and these logs, all or none of them."""
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        self._unread += [json.loads(line) for line in lines]  # as another process will read them
        self._pending += [line.encode() for line in lines]
        with self._space.tolerate_full():
            append_bytes(self._path, b"".join(self._pending))
            self._pending = []
            self._sync()

    def _sync(self) -> None:
        if time.monotonic() - self._synced < _SYNC_SEC:
            return
        with open(self._path, "rb") as file:
            os.fsync(file.fileno())
        self._synced = time.monotonic()


def repair_journal(path: Path) -> None:
    """Cut off a torn last line and remove the lock file of a killed process."""
    Path(str(path) + JOURNAL_LOCK).unlink(missing_ok=True)
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
