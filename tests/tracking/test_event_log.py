"""The event log: nothing lost, nothing twice, also after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from factories import record

from pipeline.tracking.event_log import EventLog, read_events


def events(log: EventLog) -> list[dict[str, Any]]:
    return [event for _, event in read_events(log.path) if event is not None]


def test_an_event_is_written_once_even_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    for _ in range(2):
        log = EventLog(path)
        log.start(0, "trial-0000", {"lr_g": 1e-3})
        log.record(record(5))
        log.record(record(10))
        log.record(record(10))
        log.end(0, "FINISHED")
        log.close()
    assert [event["event"] for event in events(log)] == ["open", "start", "record", "record", "end"]
    assert [e["record"]["kimg"] for e in events(log) if e["event"] == "record"] == [5, 10]
    assert log.count == 5


def test_a_repeated_event_is_reported_as_not_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "spool.jsonl")
    assert log.record(record(5, trial=3))
    assert not log.record(record(5, trial=3))
    assert log.record(record(5, trial=4))


def test_an_end_is_written_again_only_with_another_status(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "spool.jsonl")
    assert log.end(3, "KILLED")
    assert not log.end(3, "KILLED")
    assert log.end(3, "FINISHED")


@pytest.mark.parametrize("tail", [b'{"event": "rec', b'{"event": "record", "trial": 9}', b"\x00\x00"])
def test_an_incomplete_last_line_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "spool.jsonl"
    first = EventLog(path)
    first.record(record(5))
    first.close()
    complete = path.read_bytes()
    path.write_bytes(complete + tail)
    again = EventLog(path)
    assert path.read_bytes() == complete
    assert again.id == first.id
    assert again.count == 2
    assert again.record(record(10))


def test_an_unreadable_line_in_the_middle_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    EventLog(path).close()
    with open(path, "ab") as file:
        file.write(b"\xff\xfe garbage\n[1, 2]\n")
    log = EventLog(path)
    log.record(record(5))
    assert [event["event"] for event in events(log)] == ["open", "record"]
    assert log.count == 4


@pytest.mark.parametrize(
    "line",
    [
        b'{"event": "end", "trial": 0}',
        b'{"event": "record", "trial": 0}',
        b'{"event": "record", "trial": 0, "record": [1]}',
        b'{"event": "start", "trial": "0", "params": {}}',
        b'{"event": "failure", "trial": 0, "text": "x"}',
        b'{"event": ["open"]}',
        b"[" * 100_000,
    ],
)
def test_an_invalid_event_is_skipped(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "spool.jsonl"
    EventLog(path).close()
    with open(path, "ab") as file:
        file.write(line + b"\n")
    log = EventLog(path)
    assert [event["event"] for event in events(log)] == ["open"]
    assert log.count == 2


def test_reading_from_an_offset_gives_the_events_after_it(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "spool.jsonl")
    log.start(0, "trial-0000", {})
    log.end(0, "FINISHED")
    ends = [end for end, _ in read_events(log.path)]
    assert ends[-1] == log.path.stat().st_size
    assert [event["event"] for _, event in read_events(log.path, ends[1]) if event] == ["end"]


def test_a_log_whose_writer_was_killed_can_be_continued(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from pipeline.tracking.event_log import EventLog\n"
        "log = EventLog(Path(sys.argv[1]))\n"
        "for trial in range(100): log.start(trial, 'x', {})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "spool.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[2], timeout=60)
    assert done.returncode == -signal.SIGKILL
    log = EventLog(path)
    assert log.count == 101
    assert not log.start(99, "x", {})
    assert log.start(100, "x", {})


def test_artifacts_are_named_relative_to_the_sweep(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "sweep" / "spool.jsonl")
    log.artifact(None, tmp_path / "sweep" / "report.html")
    assert events(log)[-1]["path"] == "report.html"
    with pytest.raises(ValueError, match="subpath"):
        log.artifact(None, tmp_path / "elsewhere.html")
