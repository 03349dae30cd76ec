"""How far the shipping of a spool has come: shipped.json.

Owns: `Progress`, what is still to ship. Refuses: shipping.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import redact
from pipeline.storage.files import write_text
from pipeline.tracking.event_log import EventLog, read_events


@dataclass
class ExportCursor:
    """What has been shipped; lives in shipped.json and may lag behind, for shipping twice changes nothing."""

    sweep: str
    store: str
    offset: int = 0
    events: int = 0
    refused: int = 0
    parent: str = ""
    described: bool = False
    runs: dict[str, str] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)  # by run: as what
    artifacts: list[int] = field(default_factory=list)  # where the lines begin, still to upload

    @classmethod
    def read(cls, path: Path, sweep: str, store: str, size: int) -> ExportCursor:
        """The saved progress; a fresh one if it is of another sweep or store, damaged or absent."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            saved = cls(**json.loads(path.read_text(encoding="utf-8")))
            known = isinstance(saved.ended, dict) and saved.offset <= size
            if known and (saved.sweep, saved.store) == (sweep, store):
                return saved
        return cls(sweep, store)

    def write(self, path: Path) -> None:
        write_text(path, json.dumps(vars(self)))


def unexported(root: Path, spool: EventLog, tracking_uri: str) -> Counter[str]:
    """How many events of each kind in the spool of the sweep in `root` the store has not got yet."""
    saved = ExportCursor.read(
        root / "shipped.json", spool.id, redact(tracking_uri), spool.path.stat().st_size
    )
    kinds = Counter(event["event"] for _, event in read_events(spool.path, saved.offset) if event is not None)
    kinds["artifact"] += len(saved.artifacts)
    return +kinds
