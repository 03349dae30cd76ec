"""The event log of a sweep on disk (spool.jsonl): what `MlflowExporter` sends to MLflow, at once or later."""

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
from types import UnionType
from typing import Required, TypedDict, cast

from pipeline.records import TrialRecord
from pipeline.storage.files import DiskSpace, append_bytes
from pipeline.storage.summary_file import ParamValue

TRIAL_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
"""MLflow's status of a trial's run, by the state of the trial."""
SWEEP_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
"""MLflow's status of a sweep's run, by the state in summary.json."""


class Event(TypedDict, total=False):
    """One line; `_FIELDS` names the fields that each kind of event has."""

    event: Required[str]
    time_ms: int
    id: str
    trial: int | None
    name: str
    params: Mapping[str, ParamValue]
    record: Mapping[str, object]
    index: int
    text: str
    status: str
    cause: str
    path: str
    artifact_dir: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


_FIELDS: dict[str, dict[str, type | UnionType]] = {
    "open": {"id": str},
    "start": {"trial": int, "params": dict},
    "record": {"trial": int, "record": dict},
    "failure": {"trial": int, "index": int, "text": str},
    "end": {"trial": int, "status": str},
    "artifact": {"trial": int | None, "path": str},
    "finish": {"status": str},
}
_OPTIONAL = {"time_ms": int, "name": str, "cause": str, "artifact_dir": str, "metrics": dict, "tags": dict}
"""The required fields of each kind of event, and their types."""


class EventLog:
    """Append-only JSON lines, one event a line; survives SIGKILL, and never holds an event twice.

    A last line that a kill left incomplete is cut off when the file is opened again: its trial reports it
    once more. While the disk is full, lines wait in memory.

    Args:
        durable_size: returns how many bytes of the file survive the loss of this machine; no more than these
            are exported. By default all.

    Attributes:
        id: of the sweep; the first line holds it, or a later one since it was copied.
        count: number of lines.
    """

    def __init__(self, path: Path, durable_size: Callable[[], float] = lambda: math.inf) -> None:
        self.path, self.durable_size = path, durable_size
        self.id = ""
        self.count = 0
        self._seen: set[tuple[object, ...]] = set()
        self._status: dict[int | None, str] = {}
        self._lock = threading.Lock()
        self._space = DiskSpace("events for MLflow wait in memory")
        self._unwritten: list[bytes] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._recover()
        if not self.id:
            self.begin_history()

    def begin_history(self) -> None:
        """Give the sweep an id: with a new one all its events are sent to runs of its own in MLflow."""
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", self.path.resolve().parent.name)
        self._append({"event": "open", "id": f"{stem}-{secrets.token_hex(4)}"})

    def start(self, trial: int, name: str, params: Mapping[str, ParamValue]) -> bool:
        """Log the start of a trial. This and the methods below return False for a repeated event."""
        return self._append({"event": "start", "trial": trial, "name": name, "params": dict(params)})

    def record(self, record: TrialRecord) -> bool:
        """Log a tick of a trial."""
        return self._append({"event": "record", "trial": record.trial, "record": record.to_dict()})

    def failure(self, trial: int, index: int, text: str) -> bool:
        """Log a failure of a trial; `index` counts its failures."""
        return self._append({"event": "failure", "trial": trial, "index": index, "text": text})

    def end(self, trial: int, status: str, cause: str = "") -> bool:
        """Log the end of a trial. status: of `TRIAL_STATUS`."""
        return self._append({"event": "end", "trial": trial, "status": status, "cause": cause})

    def artifact(self, trial: int | None, path: Path, artifact_dir: str = "") -> bool:
        """Log a file or folder for upload. trial: None = it belongs to the sweep itself.

        Raises:
            ValueError: it does not lie in the sweep's folder.
        """
        relative = path.resolve().relative_to(self.path.resolve().parent)
        return self._append(
            {"event": "artifact", "trial": trial, "path": relative.as_posix(), "artifact_dir": artifact_dir}
        )

    def finish(
        self, status: str, metrics: Mapping[str, float] | None = None, tags: Mapping[str, str] | None = None
    ) -> bool:
        """Log the end of the sweep, a status of `SWEEP_STATUS`; of a resumed sweep the last counts."""
        return self._append(
            {"event": "finish", "status": status, "metrics": dict(metrics or {}), "tags": dict(tags or {})}
        )

    def close(self) -> None:
        """Write what is held in memory, where there is space, and flush the file to the disk."""
        with self._lock, contextlib.suppress(OSError):
            self._write()
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())

    def _append(self, event: Event) -> bool:
        with self._lock:
            if self._is_repeated(event):
                return False
            line = json.dumps({**event, "time_ms": time.time_ns() // 1_000_000}, allow_nan=False) + "\n"
            self._unwritten.append(line.encode())
            self._remember(event)
            self._write()
            return True

    def _write(self) -> None:
        with self._space.tolerate_full():
            append_bytes(self.path, b"".join(self._unwritten))
            self.count += len(self._unwritten)
            self._unwritten = []

    def _recover(self) -> None:
        if not self.path.exists():
            return
        complete = 0
        for end, event in read_events(self.path):
            self.count, complete = self.count + 1, end
            if event is not None:
                self._remember(event)
        if complete < self.path.stat().st_size:
            os.truncate(self.path, complete)

    def _is_repeated(self, event: Event) -> bool:
        if event["event"] == "end":
            return bool(self._status.get(event["trial"]) == event["status"])
        return _key(event) in self._seen

    def _remember(self, event: Event) -> None:
        if event["event"] == "open":
            self.id = event["id"]
        elif event["event"] == "end":
            self._status[event["trial"]] = event["status"]
        elif event["event"] in ("start", "record", "failure"):
            self._seen.add(_key(event))


def sweep_id(path: Path) -> str:
    """The sweep's id in an event log; "" where there is none that this user may read."""
    if not os.access(path, os.R_OK):
        return ""
    opened = [event["id"] for _, event in read_events(path) if event and event["event"] == "open"]
    return opened[-1] if opened else ""


def _key(event: Event) -> tuple[object, ...]:
    step = event["record"].get("kimg") if event["event"] == "record" else event.get("index")
    return (event["event"], event.get("trial"), step if isinstance(step, int) else None)


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[int, Event | None]]:
    """Yield (offset of the line's end, event) for every complete line from `offset` on; None = unreadable."""
    with open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield offset, _parse(line)


def has_finished(path: Path) -> bool:
    """Whether the log in `path` ends a sweep as finished."""
    if not path.is_file():
        return False
    ends = [event for _, event in read_events(path) if event and event["event"] == "finish"]
    return bool(ends) and ends[-1]["status"] == SWEEP_STATUS["finished"]


def _parse(line: bytes) -> Event | None:
    """The event of a line; None where it is not as `EventLog` writes it."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    required = _FIELDS.get(event["event"], {})
    valid = all(isinstance(event.get(name), types) for name, types in required.items())
    valid &= all(isinstance(event[name], kind) for name, kind in _OPTIONAL.items() if name in event)
    return cast(Event, event) if valid else None
