"""How far the export has come: shipped.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.tracking.cursor import ExportCursor, unexported
from pipeline.tracking.event_log import EventLog, read_events

STORE = "sqlite:////runs/mlflow.db"


def saved(path: Path, **changes: object) -> ExportCursor:
    cursor = ExportCursor(
        "sweep-1", STORE, offset=80, events=3, parent="r0", runs={"0": "r1"}, artifacts=[40]
    )
    path.write_text(json.dumps({**vars(cursor), **changes}))
    return cursor


def test_a_saved_cursor_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "shipped.json"
    cursor = saved(path)
    cursor.write(path)
    assert ExportCursor.read(path, "sweep-1", STORE, 80) == cursor


@pytest.mark.parametrize(
    ("sweep", "store", "size"),
    [("sweep-2", STORE, 80), ("sweep-1", "http://host:5000", 80), ("sweep-1", STORE, 79)],
)
def test_a_cursor_of_another_sweep_store_or_file_is_not_used(
    tmp_path: Path, sweep: str, store: str, size: int
) -> None:
    saved(tmp_path / "shipped.json")
    assert ExportCursor.read(tmp_path / "shipped.json", sweep, store, size) == ExportCursor(sweep, store)


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '{"unknown": 1}', '{"sweep": "sweep-1"}'])
def test_a_damaged_or_missing_cursor_is_replaced_by_a_fresh_one(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "shipped.json"
    if text is not None:
        path.write_text(text)
    assert ExportCursor.read(path, "sweep-1", STORE, 80) == ExportCursor("sweep-1", STORE)


def test_a_cursor_with_a_field_of_the_wrong_type_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "shipped.json"
    saved(path, ended=["r1"])
    assert ExportCursor.read(path, "sweep-1", STORE, 80) == ExportCursor("sweep-1", STORE)


def test_unexported_counts_events_after_the_cursor_and_pending_uploads(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "spool.jsonl")
    log.start(0, "trial-0000", {})
    log.start(1, "trial-0001", {})
    log.end(0, "FINISHED")
    (tmp_path / "report.html").touch()
    log.artifact(None, tmp_path / "report.html")
    assert unexported(tmp_path, log, STORE) == {"open": 1, "start": 2, "end": 1, "artifact": 1}
    ends = [end for end, _ in read_events(log.path)]
    ExportCursor(log.id, STORE, offset=ends[2], artifacts=[ends[0]]).write(tmp_path / "shipped.json")
    assert unexported(tmp_path, log, STORE) == {"end": 1, "artifact": 2}
    ExportCursor(log.id, STORE, offset=ends[-1]).write(tmp_path / "shipped.json")
    assert not unexported(tmp_path, log, STORE)
