"""Synchronizes a local folder with a prefix of an object store, in both directions.

Responsible for what has changed since the last call and for the order of uploads; not for when to
synchronize, nor for retries.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.storage.files import write_bytes
from pipeline.storage.log_segments import Segment, join_segments
from pipeline.storage.object_store import ObjectStore

LOGS = ("spool.jsonl",)
"""Append-only files, whose lines are uploaded as segments (`pipeline.storage.log_segments`)."""
MAX_SEGMENTS = 200
"""Of one log; the next upload writes a single segment in their place."""

_IMMUTABLE = re.compile(r"(.*/)?((state|best)-\d{9}-[0-9a-f]{16}\.pt|samples/\d+\.png|gallery/[^/]+)")
_OF_A_TRIAL = re.compile(r"(trials|finals)/[^/]+/(state|best)-[^/]+")
_LOCAL_ONLY = re.compile(r"(lock|reruns/.*|study\.journal.*|(.*/)?\.[^/]*)")
_UPLOAD_ORDER = (
    "samples/",
    "best-",
    "state-",
    "records.jsonl",
    "spool.jsonl",
    "shipped.json",
    "summary.json",
)
"""A file is uploaded before the records that name it."""

KeyFilter = Callable[[str], bool]


def is_scratch_file(key: str) -> bool:
    """Whether only the worker of a trial needs a file: its checkpoints, its best generator."""
    return _OF_A_TRIAL.fullmatch(key) is not None


class FolderSync:
    """The local folder `root` as a working copy of `store`; `wanted` selects the keys that it holds.

    One thread pushes; others may pull files that have no local changes.

    Attributes:
        unused_segments: keys of segments that the last pull found to be no part of a log; the process that
            holds the sweep's lock deletes them.
    """

    def __init__(self, store: ObjectStore, root: Path, wanted: KeyFilter = lambda key: True) -> None:
        self.store, self.root, self._filter = store, root, wanted
        self._synced: dict[str, tuple[int, int]] = {}  # size and mtime of a file when it equalled its key
        self._uploaded: dict[str, int] = {}  # bytes of a log that the store has
        self._segments: dict[str, list[str]] = {}  # names of the segments of a log
        self.unused_segments: list[str] = []
        self._pushing = threading.Lock()

    def pull(self, prefix: str = "", wanted: KeyFilter | None = None) -> bool:
        """Make the folder `prefix` equal to the store's: download changes, delete what the store has not.

        wanted: replaces the filter of this instance for this call.

        Returns whether the store has any key there.

        Raises:
            OSError: the store does not answer; files fetched by then are whole.
        """
        selected = (
            self._wanted if wanted is None else lambda key: wanted(key) and not _LOCAL_ONLY.fullmatch(key)
        )
        remote = {key: size for key, size in self.store.list_keys(prefix).items() if _is_safe(key)}
        logs = {key: log for key in remote if (log := _log_of(key))}
        files = {key: size for key, size in remote.items() if key not in logs and selected(key)}
        missing = [key for key, size in files.items() if not self._is_current(key, size)]
        for key, data in self.store.get_many(missing):
            self._write(key, data)
        for log in sorted(set(logs.values())):
            if selected(log):
                self._pull_log(log, [key.rpartition("/")[2] for key in logs if logs[key] == log])
        for key in list(self._local_keys(prefix)):
            if selected(key) and key not in files and key not in logs.values():
                (self.root / key).unlink(missing_ok=True)
                self._synced.pop(key, None)
        return bool(remote)

    def pull_file(self, key: str) -> None:
        """Fetch one key, unless the file exists locally.

        Raises:
            OSError: the store does not answer, or has no such key.
        """
        if self._stat(key) is None:
            self._write(key, self.store.get(key))

    def push(self, prefix: str = "") -> int:
        """Upload what has changed in the folder `prefix` since the last pull or push, deletions included.

        A push that failed half-way can simply be repeated.

        Returns how many keys were uploaded.

        Raises:
            OSError: the store does not answer.
        """
        with self._pushing:
            local = {
                key: stat
                for key in self._local_keys(prefix)
                if self._wanted(key) and (stat := self._stat(key))
            }
            changed = sorted((key for key in local if local[key] != self._synced.get(key)), key=_upload_rank)
            for key in changed:
                self._push_file(key, local[key])
            below = f"{prefix}/" if prefix else ""
            deleted = [key for key in self._synced_keys(below) if key not in local]
            for key in deleted if local else ():  # an empty folder was removed as a whole, not emptied by us
                names = self._segments.pop(key, [])
                self.store.delete([f"{key}/{name}" for name in names] if key in LOGS else [key])
                del self._synced[key]
                self._uploaded.pop(key, None)
        return len(changed)

    def uploaded_bytes(self, log: str) -> int:
        """How many bytes of a log the store has."""
        return self._uploaded.get(log, 0)

    def _push_file(self, key: str, stat: tuple[int, int]) -> None:
        with contextlib.suppress(FileNotFoundError):  # replaced or deleted meanwhile: left to the next push
            if key in LOGS:
                self._push_log(key)
            else:
                self.store.put(key, (self.root / key).read_bytes())
            self._synced[key] = stat

    def _push_log(self, log: str) -> None:
        """Upload the complete lines that the store has not, as one segment; compact if there are too many."""
        names = self._segments.setdefault(log, [])
        begin = 0 if len(names) >= MAX_SEGMENTS else self.uploaded_bytes(log)
        with open(self.root / log, "rb") as file:
            file.seek(begin)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        if begin + len(new) > self.uploaded_bytes(log):
            name = Segment.of(begin, new).name
            self.store.put(f"{log}/{name}", new)
            self._uploaded[log] = begin + len(new)
            if begin == 0:  # it contains all the others
                self.store.delete(f"{log}/{old}" for old in names if old != name)
                names.clear()
            names.append(name)

    def _pull_log(self, log: str, names: list[str]) -> None:
        """Extend the local log from where the last pull ended; start anew if the segments were compacted."""
        begin = self.uploaded_bytes(log)
        data, unused = self._join(log, [name for name in names if name >= f"{begin:015d}"], begin)
        found = filter(None, map(Segment.parse, names))
        if begin and not data and any(segment.offset + segment.length > begin for segment in found):
            begin = 0
            data, unused = self._join(log, names, 0)
        old = (self.root / log).read_bytes()[:begin] if begin else b""
        self._write(log, old + data)
        self._uploaded[log] = begin + len(data)
        self._segments[log] = sorted(set(names) - set(unused))
        self.unused_segments = [f"{log}/{name}" for name in unused]

    def _join(self, log: str, names: list[str], begin: int) -> tuple[bytes, list[str]]:
        fetched = dict(self.store.get_many(f"{log}/{name}" for name in names))

        def get(name: str) -> bytes:
            if (key := f"{log}/{name}") not in fetched:
                raise FileNotFoundError(key)
            return fetched[key]

        return join_segments(names, get, begin)

    def _wanted(self, key: str) -> bool:
        return self._filter(key) and not _LOCAL_ONLY.fullmatch(key)

    def _synced_keys(self, below: str) -> list[str]:
        """Keys that the store is known to have and that this instance may delete."""
        return [key for key in list(self._synced) if key.startswith(below) and self._wanted(key)]

    def _is_current(self, key: str, size: int) -> bool:
        """Whether the file exists locally, under a name whose content never changes."""
        stat = self._stat(key)
        if stat is None or stat[0] != size or not _IMMUTABLE.fullmatch(key):
            return False
        self._synced[key] = stat
        return True

    def _write(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
        if stat := self._stat(key):
            self._synced[key] = stat

    def _stat(self, key: str) -> tuple[int, int] | None:
        """Size in bytes and mtime in ns of the local file; None if there is none."""
        try:
            found = (self.root / key).stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    def _local_keys(self, prefix: str) -> Iterator[str]:
        for folder, _, names in os.walk(self.root / prefix):
            for name in names:
                yield Path(folder, name).relative_to(self.root).as_posix()


def _upload_rank(key: str) -> tuple[int, str]:
    ranks = [rank for rank, pattern in enumerate(_UPLOAD_ORDER) if pattern in key]
    return (ranks[0] if ranks else 0), key


def _log_of(key: str) -> str:
    """The log that a key is a segment of; empty if it is no segment."""
    log, _, name = key.rpartition("/")
    return log if log in LOGS and Segment.parse(name) else ""


def _is_safe(key: str) -> bool:
    """Whether a key, which somebody else may have written, names a file below the folder."""
    return not key.startswith("/") and ".." not in key.split("/") and "\\" not in key
