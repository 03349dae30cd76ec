"""The adapters from Ray Tune to the trial manager, called as Tune calls them; no Ray runs."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from trial_managers import make_manager, tick

from pipeline.cluster.preemption import PREEMPTED
from pipeline.cluster.tune_adapters import StudyScheduler, StudySearcher, StudyStopper, failure_cause
from pipeline.search.trial_manager import TrialManager
from pipeline.training.checkpoint import read_failures
from pipeline.training.events import EventKind, TrialEvent


@pytest.fixture
def manager(tmp_path: Path) -> TrialManager:
    """A manager whose trial 0 has been suggested."""
    manager = make_manager(tmp_path)
    assert manager.ask() is not None
    return manager


def tune_trial(number: int = 0, error_file: str | None = None) -> Any:
    return SimpleNamespace(config={"number": number}, error_file=error_file)


def deliver(manager: TrialManager, *events: TrialEvent, kimg: int = 1, **more: Any) -> str:
    """Give the scheduler a report with a record and these events; returns its decision."""
    result = {"record": tick(0, kimg, 9.0), "events": list(events), **more}
    return StudyScheduler(manager).on_trial_result(None, tune_trial(), result)


def test_the_searcher_suggests_trials_and_reports_their_ends(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, trials=2)
    searcher = StudySearcher(manager)
    suggested: Any = searcher.suggest("a")
    assert suggested == {"number": 0, "params": manager.trials[0].params}
    manager.report(tick(0, 1, 9.0))
    searcher.on_trial_complete("a")
    searcher.suggest("b")
    searcher.on_trial_complete("b", error=True)
    assert [(trial.state, trial.cause) for trial in manager.trials.values()] == [
        ("complete", ""),
        ("failed", "the worker died or raised"),
    ]
    assert searcher.suggest("c") == StudySearcher.FINISHED
    searcher.on_trial_complete("unknown")


def test_a_record_goes_to_the_study(manager: TrialManager) -> None:
    assert deliver(manager) == TrialScheduler.CONTINUE
    assert [record.kimg for record in manager.trials[0].records] == [1]


def test_a_diverged_trial_is_stopped(manager: TrialManager) -> None:
    result = {"record": tick(0, 1, 9.0, verdict="diverged")}
    assert StudyScheduler(manager).on_trial_result(None, tune_trial(), result) == TrialScheduler.STOP
    assert manager.trials[0].state == "pruned"


def test_a_trial_that_cannot_go_on_has_failed(
    manager: TrialManager, caplog: pytest.LogCaptureFixture
) -> None:
    events, lines = [TrialEvent(EventKind.STORE_AWAY, "no network")], [(logging.WARNING, "the last line")]
    result = {"objective": 0.0, "failure": "its images are gone", "events": events, "lines": lines}
    assert StudyScheduler(manager).on_trial_result(None, tune_trial(), result) == TrialScheduler.STOP
    assert (manager.trials[0].state, manager.trials[0].cause) == ("failed", "its images are gone")
    assert [failure.text for failure in manager.trials[0].failures] == ["no network"]
    assert "trial 0: the last line" in caplog.messages


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind.is_failure])
def test_a_failure_event_is_recorded_by_its_kind_whatever_its_text(
    manager: TrialManager, kind: EventKind
) -> None:
    deliver(manager, TrialEvent(kind, "some text"))
    (failure,) = manager.trials[0].failures
    assert (failure.kind, failure.text) == (kind.value, "some text")
    assert read_failures(manager.paths.trial(0)) == [failure]


def test_space_on_the_disk_again_is_logged_and_no_failure(
    manager: TrialManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    event = TrialEvent(
        EventKind.DISK_HAS_SPACE, "the disk has space again; nothing was saved while it was full"
    )
    assert deliver(manager, event) == TrialScheduler.CONTINUE
    assert f"trial 0: {event.text}" in caplog.messages
    assert manager.trials[0].failures == []
    assert read_failures(manager.paths.trial(0)) == []


def test_training_without_cuda_graphs_is_no_failure(manager: TrialManager) -> None:
    deliver(manager, TrialEvent(EventKind.NO_CUDA_GRAPHS, "out of memory while capturing"))
    assert manager.trials[0].failures == []


def test_lines_of_the_worker_are_logged_at_their_level(
    manager: TrialManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    deliver(manager, lines=[(logging.WARNING, "the disk is full"), (logging.INFO, "100 % done")])
    logged = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert logged == [(logging.WARNING, "trial 0: the disk is full"), (logging.INFO, "trial 0: 100 % done")]
    assert manager.trials[0].failures == []


def test_a_dead_worker_is_recorded_and_a_preempted_one_is_not(manager: TrialManager, tmp_path: Path) -> None:
    scheduler, file = StudyScheduler(manager), tmp_path / "error.txt"
    file.write_text(RAY_ERROR_FILE.format(f"ray.exceptions.RayActorError: {PREEMPTED}"))
    scheduler.on_trial_error(None, tune_trial(error_file=str(file)))
    assert manager.trials[0].failures == []
    scheduler.on_trial_error(None, tune_trial())
    assert [failure.kind for failure in manager.trials[0].failures] == ["worker killed"]


def test_the_search_stops_when_it_is_interrupted(manager: TrialManager) -> None:
    stopper = StudyStopper(manager)
    assert not stopper.stop_all()
    manager.interrupted = True
    assert stopper.stop_all()
    assert not stopper("trial", {})


def test_nothing_of_the_study_goes_into_rays_own_files(manager: TrialManager) -> None:
    for adapter in (StudySearcher(manager), StudyScheduler(manager), StudyStopper(manager)):
        assert adapter.__getstate__() == {}


RAY_ERROR_FILE = """Failure # 1 (occurred at 2026-11-22)
ValueError: the first one

Failure # 2 (occurred at 2026-11-22)
{}
"""


@pytest.mark.parametrize(
    ("text", "kind", "cause"),
    [
        ("Traceback ...\n  File x\nValueError: too wide", "exception", "ValueError: too wide"),
        ("torch.OutOfMemoryError: CUDA out of memory.\n more", "out of memory", "torch.OutOfMemoryError"),
        ("The actor died unexpectedly.\n Worker exit detail: End of file. Some common causes include: (1) "
         "the process was killed by the OOM killer", "worker killed", "End of file."),
        ("The actor died\n Task was killed, the node running low on memory.", "out of memory", "Task was"),
        ("File y\nray.exceptions.RayActorError: its machine is being taken away", "machine gone", PREEMPTED),
        ("", "worker killed", "its process is gone"),
    ],
)  # fmt: skip
def test_the_cause_of_a_failure_is_read_from_rays_error_file(
    tmp_path: Path, text: str, kind: str, cause: str
) -> None:
    file = tmp_path / "error.txt"
    file.write_text(RAY_ERROR_FILE.format(text))
    found = failure_cause(str(file))
    assert found[0] == kind
    assert found[1].startswith(cause)
    assert failure_cause(None) == ("worker killed", "its process is gone")
