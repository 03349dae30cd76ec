"""How far the export of an event log to MLflow has come: shipped.json."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import redact
from pipeline.storage.addresses import parse_sqlite
from pipeline.storage.files import write_text
from pipeline.storage.moved_sweep import relative_path
from pipeline.tracking.event_log import EventLog, read_events


@dataclass
class ExportCursor:
    """What has been exported; the fields are the keys of shipped.json.

    The file may lag behind the store: exporting an event twice changes nothing.

    Attributes:
        sweep: id of the event log.
        store: which one it is, by `store_key`.
        offset: bytes of the event log that have been read.
        events: lines that have been read.
        refused: events that the store will never accept.
        parent: run id of the sweep; empty = not created yet.
        described: whether the parameters of the sweep's run have been logged.
        runs: run id by trial number.
        ended: final status by run id.
        artifacts: offsets of the artifact events that are still to be uploaded.
    """

    sweep: str
    store: str
    offset: int = 0
    events: int = 0
    refused: int = 0
    parent: str = ""
    described: bool = False
    runs: dict[str, str] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    artifacts: list[int] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path, sweep: str, store: str, size: int) -> ExportCursor:
        """The saved cursor; a fresh one if it is of another sweep or store, damaged or absent.

        size: bytes of the event log; a cursor beyond its end is damaged.
        """
        with contextlib.suppress(OSError, ValueError, TypeError):
            saved = cls(**json.loads(path.read_text(encoding="utf-8")))
            valid = isinstance(saved.ended, dict) and saved.offset <= size
            if valid and (saved.sweep, saved.store) == (sweep, store):
                return saved
        return cls(sweep, store)

    def write(self, path: Path) -> None:
        """Replace the file at `path` atomically."""
        write_text(path, json.dumps(vars(self)))


def store_key(root: Path, tracking_uri: str) -> str:
    """The store without its secrets; an sqlite file beside the sweep as seen from its folder `root`."""
    address = parse_sqlite(tracking_uri)
    if address is None:
        return redact(tracking_uri)
    return str(address.at(relative_path(address.path, root.resolve())))


def unexported(root: Path, event_log: EventLog, tracking_uri: str) -> Counter[str]:
    """How many events of each kind in the log of the sweep in `root` the store does not have yet."""
    cursor = ExportCursor.read(
        root / "shipped.json", event_log.id, store_key(root, tracking_uri), event_log.path.stat().st_size
    )
    pending = read_events(event_log.path, cursor.offset)
    kinds = Counter(event["event"] for _, event in pending if event is not None)
    kinds["artifact"] += len(cursor.artifacts)
    return +kinds
