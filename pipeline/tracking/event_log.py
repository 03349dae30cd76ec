"""The log on disk from which MLflow is fed: the truth of a sweep where MLflow is away.

Owns: the file's format, its recovery after a kill, which event is a repetition; lines that a full disk
refuses wait in memory. Refuses: knowing MLflow.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.records import TrialRecord
from pipeline.storage.files import DiskSpace, append_bytes

Event = dict[str, Any]
_FIELDS: dict[str, dict[str, Any]] = {
    "open": {"id": str},
    "start": {"trial": int, "params": dict},
    "record": {"trial": int, "record": dict},
    "failure": {"trial": int, "index": int, "text": str},
    "end": {"trial": int, "status": str},
    "artifact": {"trial": int | None, "path": str},
    "finish": {"status": str},
}
"""What each event must have to be one."""


class EventLog:
    """Append-only JSON lines, one event a line; survives SIGKILL, and never holds a row twice.

    A line torn by a kill is cut off when the file is opened again: its trial reports it once more.
    `id` names the sweep for ever (it is the first line); `count` is the number of lines. `settled` gives the bytes that no lost machine takes back: MLflow is to know no more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = ""
        self.count = 0
        self._seen: set[tuple[object, ...]] = set()
        self._status: dict[int, str] = {}
        self._lock = threading.Lock()
        self._space = DiskSpace("what MLflow is to know waits in memory")
        self._held: list[bytes] = []
        self.settled: Callable[[], float] = lambda: math.inf
        path.parent.mkdir(parents=True, exist_ok=True)
        self._recover()
        if not self.id:
            stem = re.sub(r"[^A-Za-z0-9._-]", "_", path.resolve().parent.name)
            self._append({"event": "open", "id": f"{stem}-{secrets.token_hex(4)}"})

    def start(self, trial: int, name: str, params: Mapping[str, object]) -> bool:
        """A trial begins. Returns False where it stands already (so do those below)."""
        return self._append({"event": "start", "trial": trial, "name": name, "params": dict(params)})

    def record(self, record: TrialRecord) -> bool:
        """A trial reports a tick."""
        return self._append({"event": "record", "trial": record.trial, "record": record.to_dict()})

    def failure(self, trial: int, index: int, text: str) -> bool:
        """Something went wrong with a trial; `index` counts what did."""
        return self._append({"event": "failure", "trial": trial, "index": index, "text": text})

    def end(self, trial: int, status: str, cause: str = "") -> bool:
        """A trial is over: status is FINISHED, KILLED or FAILED."""
        return self._append({"event": "end", "trial": trial, "status": status, "cause": cause})

    def artifact(self, trial: int | None, path: Path, artifact_dir: str = "") -> bool:
        """A file or folder below the sweep's is worth keeping; `trial` None = of the sweep itself."""
        relative = path.resolve().relative_to(self.path.resolve().parent)
        return self._append(
            {"event": "artifact", "trial": trial, "path": relative.as_posix(), "artifact_dir": artifact_dir}
        )

    def finish(
        self, status: str, metrics: Mapping[str, float] | None = None, tags: Mapping[str, str] | None = None
    ) -> bool:
        """The sweep is over (a resumed one may be over again; the last word counts)."""
        return self._append(
            {"event": "finish", "status": status, "metrics": dict(metrics or {}), "tags": dict(tags or {})}
        )

    def close(self) -> None:
        """Write what waits, where there is space, and bring the log to the disk."""
        with self._lock, contextlib.suppress(OSError):
            self._write_held()
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _append(self, event: Event) -> bool:
        with self._lock:
            if self._known(event):
                return False
            line = json.dumps({**event, "time_ms": time.time_ns() // 1_000_000}, allow_nan=False) + "\n"
            self._held.append(line.encode())
            self._remember(event)
            self._write_held()
            return True

    def _write_held(self) -> None:
        with self._space.awaited():
            append_bytes(self.path, b"".join(self._held))
            self.count += len(self._held)
            self._held = []

    def _recover(self) -> None:
        if not self.path.exists():
            return
        whole = 0
        for end, event in read_events(self.path):
            self.count, whole = self.count + 1, end
            if event is not None:
                self._remember(event)
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)

    def _known(self, event: Event) -> bool:
        if event["event"] == "end":
            return bool(self._status.get(event["trial"]) == event["status"])
        return _key(event) in self._seen

    def _remember(self, event: Event) -> None:
        if event["event"] == "open":
            self.id = self.id or event["id"]
        elif event["event"] == "end":
            self._status[event["trial"]] = event["status"]
        elif event["event"] in ("start", "record", "failure"):
            self._seen.add(_key(event))


def _key(event: Event) -> tuple[object, ...]:
    step = event["record"].get("kimg") if event["event"] == "record" else event.get("index")
    return (event["event"], event.get("trial"), step if isinstance(step, int) else None)


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[int, Event | None]]:
    """Yield (offset behind the line, event) for every complete line from `offset` on; None = unreadable."""
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield offset, _event(line)


def _event(line: bytes) -> Event | None:
    """What a line says; None where it is not as `Spool` writes it."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    wanted = _FIELDS.get(event["event"], {})
    return event if all(isinstance(event.get(name), kinds) for name, kinds in wanted.items()) else None
