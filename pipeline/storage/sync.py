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

LOG = "spool.jsonl"
"""The event log: append-only, so its new lines are uploaded as segments (`pipeline.storage.log_segments`)."""
MAX_SEGMENTS = 200
"""Of the log; the next upload writes a single segment in their place."""

_IMMUTABLE = re.compile(r"(.*/)?((state|best)-\d{9}-[0-9a-f]{16}\.pt|samples/\d+\.png|gallery/[^/]+)")
_OF_A_TRIAL = re.compile(r"(trials|finals)/[^/]+/(state|best)-[^/]+")
_LOCAL_ONLY = re.compile(r"(lock|reruns/.*|study\.journal.*|(.*/)?\.[^/]*)")
_UPLOAD_ORDER = ("samples/", "best-", "state-", "records.jsonl", LOG, "shipped.json", "summary.json")
"""A file is uploaded before the records that name it."""

KeyFilter = Callable[[str], bool]


def is_scratch_file(key: str) -> bool:
    """Whether only the worker of a trial needs a file: its checkpoints, its best generator."""
    return _OF_A_TRIAL.fullmatch(key) is not None


class FolderSync:
    """The local folder `root` as a working copy of `store`; `wanted` selects the keys that it holds.

    One thread pushes; others may pull files that have no local changes. uploaded_bytes: how many bytes of the
    log the store has. unused_segments: keys of segments that the last pull found to be no part of the log;
    the process that holds the sweep's lock deletes them.
    """

    def __init__(self, store: ObjectStore, root: Path, wanted: KeyFilter = lambda key: True) -> None:
        self.store, self.root, self._wanted = store, root, wanted
        self._synced: dict[str, tuple[int, int]] = {}  # size and mtime of a file when it equalled its key
        self._segments: list[str] = []  # names of the segments of the log
        self.uploaded_bytes = 0
        self.unused_segments: list[str] = []
        self._pushing = threading.Lock()

    def key(self, path: Path) -> str:
        """The key of a file or folder below `root`."""
        return path.relative_to(self.root).as_posix()

    def pull(self, prefix: str = "", wanted: KeyFilter | None = None) -> bool:
        """Make the folder `prefix` equal to the store's: download changes, delete what the store has not.

        wanted: replaces the filter of this instance. Returns whether the store has any key there.

        Raises:
            OSError: the store does not answer; files fetched by then are whole.
        """
        wanted = wanted or self._wanted
        remote = {key: size for key, size in self.store.list_keys(prefix).items() if _is_shared(key)}
        segments = [key.removeprefix(f"{LOG}/") for key in remote if _is_segment(key)]
        files = {key: size for key, size in remote.items() if wanted(key) and not _is_segment(key)}
        missing = [key for key, size in files.items() if not self._is_current(key, size)]
        for key, data in self.store.get_many(missing):
            self._write(key, data)
        if segments and wanted(LOG):
            self._pull_log(segments)
        for key in list(self._local_keys(prefix)):
            if wanted(key) and key not in files and not (key == LOG and segments):
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

        A push that failed half-way can simply be repeated. Returns how many keys were uploaded.

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
            deleted = [key for key in list(self._synced) if key not in local and key.startswith(below)]
            if local:  # an empty folder was removed as a whole, not emptied by us
                for key in filter(self._wanted, deleted):
                    self._delete(key)
        return len(changed)

    def _delete(self, key: str) -> None:
        self.store.delete([f"{LOG}/{name}" for name in self._segments] if key == LOG else [key])
        del self._synced[key]
        if key == LOG:
            self._segments, self.uploaded_bytes = [], 0

    def _push_file(self, key: str, stat: tuple[int, int]) -> None:
        with contextlib.suppress(FileNotFoundError):  # replaced or deleted meanwhile: left to the next push
            if key == LOG:
                self._push_log()
            else:
                self.store.put(key, (self.root / key).read_bytes())
            self._synced[key] = stat

    def _push_log(self) -> None:
        """Upload the complete lines that the store has not, as one segment; compact if there are too many."""
        begin = 0 if len(self._segments) >= MAX_SEGMENTS else self.uploaded_bytes
        with open(self.root / LOG, "rb") as file:
            file.seek(begin)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        if begin + len(new) > self.uploaded_bytes:
            name = Segment.of(begin, new).name
            self.store.put(f"{LOG}/{name}", new)
            self.uploaded_bytes = begin + len(new)
            if begin == 0:  # it contains all the others
                self.store.delete(f"{LOG}/{old}" for old in self._segments if old != name)
                self._segments = []
            self._segments.append(name)

    def _pull_log(self, names: list[str]) -> None:
        """Extend the local log from where the last pull ended; start anew if the segments were compacted."""
        begin = self.uploaded_bytes
        data, unused = self._join([name for name in names if name >= f"{begin:015d}"], begin)
        found = filter(None, map(Segment.parse, names))
        if begin and not data and any(segment.offset + segment.length > begin for segment in found):
            begin = 0
            data, unused = self._join(names, 0)
        old = (self.root / LOG).read_bytes()[:begin] if begin else b""
        self._write(LOG, old + data)
        self.uploaded_bytes = begin + len(data)
        self._segments = sorted(set(names) - set(unused))
        self.unused_segments = [f"{LOG}/{name}" for name in unused]

    def _join(self, names: list[str], begin: int) -> tuple[bytes, list[str]]:
        fetched = self.store.get_many(f"{LOG}/{name}" for name in names)
        return join_segments({key.removeprefix(f"{LOG}/"): data for key, data in fetched}, begin)

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
            yield from filter(_is_shared, (self.key(Path(folder, name)) for name in names))


def _upload_rank(key: str) -> tuple[int, str]:
    ranks = [rank for rank, pattern in enumerate(_UPLOAD_ORDER) if pattern in key]
    return (ranks[0] if ranks else 0), key


def _is_segment(key: str) -> bool:
    folder, _, name = key.rpartition("/")
    return folder == LOG and Segment.parse(name) is not None


def _is_shared(key: str) -> bool:
    """Whether a file is kept in the store, and its key, which somebody else may have written, is safe."""
    safe = not key.startswith("/") and ".." not in key.split("/") and "\\" not in key
    return safe and not _LOCAL_ONLY.fullmatch(key)
