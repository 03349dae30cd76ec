"""Events of a trial: which of them are failures, and how they are logged."""

from __future__ import annotations

import logging

import pytest

from pipeline.training.checkpoint import FAILURE_KINDS
from pipeline.training.events import EventKind, TrialEvent, log_event


@pytest.mark.parametrize("kind", EventKind)
def test_an_event_is_a_failure_if_failures_jsonl_has_its_kind(kind: EventKind) -> None:
    assert kind.is_failure == (kind.value in FAILURE_KINDS)


@pytest.mark.parametrize(
    ("kind", "level"), [(EventKind.DISK_HAS_SPACE, "INFO"), (EventKind.DISK_FULL, "WARNING")]
)
def test_events_are_logged_by_default(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, kind: EventKind, level: str
) -> None:
    monkeypatch.setattr(logging.getLogger("pipeline"), "propagate", True)  # the command line switches it off
    caplog.set_level("INFO", "pipeline")
    log_event(TrialEvent(kind, "50 % of it"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [(level, "50 % of it")]
