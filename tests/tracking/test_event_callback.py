"""From the search's callbacks to events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories import record

from pipeline.config import SweepPaths
from pipeline.search.trial_manager import SweepTrial
from pipeline.tracking.event_callback import EventLogCallback
from pipeline.tracking.event_log import EventLog, read_events
from pipeline.training.checkpoint import Failure, grid_path, read_records


@pytest.fixture
def paths(tmp_path: Path) -> SweepPaths:
    return SweepPaths(tmp_path)


@pytest.fixture
def log(paths: SweepPaths) -> EventLog:
    return EventLog(paths.event_log)


def last(log: EventLog) -> dict[str, Any]:
    *_, (_, event) = read_events(log.path)
    assert event is not None
    return event


@pytest.mark.parametrize(
    ("state", "status"), [("complete", "FINISHED"), ("pruned", "KILLED"), ("failed", "FAILED")]
)
def test_the_end_of_a_trial_has_a_status_of_mlflow_and_a_cause(
    log: EventLog, paths: SweepPaths, state: str, status: str
) -> None:
    trial = SweepTrial(3, {}, state, cause="because")
    EventLogCallback(log, paths).on_end(trial)
    event = last(log)
    assert (event["trial"], event["status"], event["cause"]) == (3, status, "because")


def test_a_record_is_logged_with_its_image_grid_once(log: EventLog, paths: SweepPaths) -> None:
    callback, trial = EventLogCallback(log, paths), SweepTrial(2, {})
    grid = grid_path(paths.trial(2), 5)
    grid.parent.mkdir(parents=True)
    grid.write_bytes(b"png")
    for _ in range(2):
        callback.on_record(trial, record(5, trial=2))
    callback.on_record(trial, record(6, trial=2))  # this tick has no grid
    logged = [event for _, event in read_events(log.path) if event and event["event"] != "open"]
    assert [event["event"] for event in logged] == ["record", "artifact", "record"]
    assert logged[1]["artifact_dir"] == "samples"


def test_a_failure_is_logged_as_a_line(log: EventLog, paths: SweepPaths) -> None:
    failure = Failure(1, "exception", "boom", 4)
    EventLogCallback(log, paths).on_failure(SweepTrial(0, {}), failure)
    assert (last(log)["index"], last(log)["text"]) == (1, str(failure))


def test_records_that_a_full_disk_kept_out_are_written_at_the_end(log: EventLog, paths: SweepPaths) -> None:
    records = [record(5), record(10)]
    paths.trial(0).mkdir(parents=True)
    EventLogCallback(log, paths).on_end(SweepTrial(0, {}, "complete", records=records))
    assert read_records(paths.trial(0)) == records
