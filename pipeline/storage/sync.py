"""A folder here and a prefix of a store, each made like the other.

Owns: `Mirror`; what has changed since it last looked; the order in which things are put. Refuses: deciding
when, and trying again.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.storage.files import write_bytes
from pipeline.storage.log_segments import Segment, put_together
from pipeline.storage.object_store import ObjectStore

LOGS = ("spool.jsonl",)
"""Files that only grow, line by line, for as long as a sweep runs."""
MOST = 200
"""Segments of a log; the next one holds all that they hold, and takes their place."""

_NEVER_ALTERED = re.compile(r"(.*/)?((state|best)-\d{9}-[0-9a-f]{16}\.pt|samples/\d+\.png|gallery/[^/]+)")
_OF_A_TRIAL = re.compile(r"(trials|finals)/[^/]+/(state|best)-[^/]+")
_HERE_ONLY = re.compile(r"(lock|reruns/.*|study\.journal.*|(.*/)?\.[^/]*)")
_RANKS = ("samples/", "best-", "state-", "records.jsonl", "spool.jsonl", "shipped.json", "summary.json")
"""What is told of comes before what tells of it."""

Wanted = Callable[[str], bool]


def is_scratch_file(key: str) -> bool:
    """Whether only the worker of a trial needs a file: its checkpoints, its best generator."""
    return _OF_A_TRIAL.fullmatch(key) is not None


class FolderSync:
    """A folder below `root` that stands for `store`; `wanted` names the keys that it is about.

    One thread pushes; others may pull what the folder has no changes of.
    """

    def __init__(self, store: ObjectStore, root: Path, wanted: Wanted = lambda key: True) -> None:
        self.store, self.root, self._asked = store, root, wanted
        self._known: dict[str, tuple[int, int]] = {}  # how a file was when it was like its key
        self._sealed: dict[str, int] = {}  # bytes of a log that the store has
        self._segments: dict[str, list[str]] = {}  # their names
        self.spare: list[str] = []  # segments that are no part of a log: for its owner to delete
        self._pushing = threading.Lock()

    def pull(self, prefix: str = "", wanted: Wanted | None = None) -> bool:
        """Make the folder `prefix` like the store's; of both only what is `wanted`. False: nothing was there.

        Raises:
            OSError: the store does not answer; what was fetched by then is whole.
        """
        asked = self._wanted if wanted is None else lambda key: wanted(key) and not _HERE_ONLY.fullmatch(key)
        there = {key: size for key, size in self.store.listing(prefix).items() if _safe(key)}
        logs = {key: log for key in there if (log := _log_of(key))}
        files = {key: size for key, size in there.items() if key not in logs and asked(key)}
        wanting = [key for key, size in files.items() if not self._has(key, size)]
        for key, data in self.store.get_all(wanting):
            self._write(key, data)
        for log in sorted(set(logs.values())):
            if asked(log):
                self._pull_log(log, [key.rpartition("/")[2] for key in logs if logs[key] == log])
        for key in list(self._here(prefix)):
            if asked(key) and key not in files and key not in logs.values():
                (self.root / key).unlink(missing_ok=True)
                self._known.pop(key, None)
        return bool(there)

    def pull_file(self, key: str) -> None:
        """Fetch one key that is not here yet.

        Raises:
            OSError: the store does not answer, or has no such key.
        """
        if self._mark(key) is None:
            self._write(key, self.store.get(key))

    def push(self, prefix: str = "") -> int:
        """Put what has changed in the folder `prefix` since the last pull or push, and delete what went.

        Returns how many keys were put. A push that failed half-way is simply done again.

        Raises:
            OSError: the store does not answer.
        """
        with self._pushing:
            here = {
                key: mark for key in self._here(prefix) if self._wanted(key) and (mark := self._mark(key))
            }
            new = sorted((key for key in here if here[key] != self._known.get(key)), key=_rank)
            for key in new:
                self._push(key, here[key])
            below = f"{prefix}/" if prefix else ""
            gone = [key for key in self._about(below) if key not in here]
            for key in gone if here else ():  # a folder without anything was taken away, not emptied by us
                names = self._segments.pop(key, [])
                self.store.delete([f"{key}/{name}" for name in names] if key in LOGS else [key])
                del self._known[key]
                self._sealed.pop(key, None)
        return len(new)

    def _push(self, key: str, mark: tuple[int, int]) -> None:
        with contextlib.suppress(FileNotFoundError):  # replaced or deleted meanwhile: the next push sees it
            if key in LOGS:
                self._seal(key)
            else:
                self.store.put(key, (self.root / key).read_bytes())
            self._known[key] = mark

    def _seal(self, log: str) -> None:
        """Put the whole lines that the store has not got as one more segment; of many segments make one."""
        names = self._segments.setdefault(log, [])
        begin = 0 if len(names) >= MOST else self.sealed(log)
        with open(self.root / log, "rb") as file:
            file.seek(begin)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        if begin + len(new) > self.sealed(log):
            name = Segment.of(begin, new).name
            self.store.put(f"{log}/{name}", new)
            self._sealed[log] = begin + len(new)
            if begin == 0:  # all the others are in this one
                self.store.delete(f"{log}/{old}" for old in names if old != name)
                names.clear()
            names.append(name)

    def sealed(self, log: str) -> int:
        """How many bytes of a log the store has."""
        return self._sealed.get(log, 0)

    def _pull_log(self, log: str, names: list[str]) -> None:
        """Put a log together from where the last pull ended; anew where its segments became one meanwhile."""
        begin = self.sealed(log)
        data, spare = self._read(log, [name for name in names if name >= f"{begin:015d}"], begin)
        found = filter(None, map(Segment.named, names))
        if begin and not data and any(segment.offset + segment.length > begin for segment in found):
            begin = 0
            data, spare = self._read(log, names, 0)
        old = (self.root / log).read_bytes()[:begin] if begin else b""
        self._write(log, old + data)
        self._sealed[log] = begin + len(data)
        self._segments[log] = sorted(set(names) - set(spare))
        self.spare = [f"{log}/{name}" for name in spare]

    def _read(self, log: str, names: list[str], begin: int) -> tuple[bytes, list[str]]:
        fetched = dict(self.store.get_all(f"{log}/{name}" for name in names))

        def get(name: str) -> bytes:
            if (key := f"{log}/{name}") not in fetched:
                raise FileNotFoundError(key)
            return fetched[key]

        return put_together(names, get, begin)

    def _wanted(self, key: str) -> bool:
        return self._asked(key) and not _HERE_ONLY.fullmatch(key)

    def _about(self, below: str) -> list[str]:
        """What the store is known to hold and is ours to delete."""
        return [key for key in list(self._known) if key.startswith(below) and self._wanted(key)]

    def _has(self, key: str, size: int) -> bool:
        """Whether the file is here already, under a name that stands for its content."""
        mark = self._mark(key)
        if mark is None or mark[0] != size or not _NEVER_ALTERED.fullmatch(key):
            return False
        self._known[key] = mark
        return True

    def _write(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, data)
        if mark := self._mark(key):
            self._known[key] = mark

    def _mark(self, key: str) -> tuple[int, int] | None:
        try:
            found = (self.root / key).stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    def _here(self, prefix: str) -> Iterator[str]:
        for folder, _, names in os.walk(self.root / prefix):
            for name in names:
                yield Path(folder, name).relative_to(self.root).as_posix()


def _rank(key: str) -> tuple[int, str]:
    ranks = [rank for rank, mark in enumerate(_RANKS) if mark in key]
    return (ranks[0] if ranks else 0), key


def _log_of(key: str) -> str:
    """The log that a key is a segment of; empty where it is none."""
    log, _, name = key.rpartition("/")
    return log if log in LOGS and Segment.named(name) else ""


def _safe(key: str) -> bool:
    """Whether a key, which others may have put, names a file below the folder."""
    return not key.startswith("/") and ".." not in key.split("/") and "\\" not in key
