"""A disk that is really full (a small tmpfs): nothing stops, and what waited is written in the end."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import factories
import pytest
from disks import tmpfs

from pipeline.config import SweepConfig, SweepPaths, TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics.frechet import Evaluator
from pipeline.search.space.parser import parse_space
from pipeline.search.study import open_study
from pipeline.search.trial_manager import TrialManager
from pipeline.storage.files import DiskSpace
from pipeline.tracking.event_log import EventLog, read_events
from pipeline.training import trial
from pipeline.training.checkpoint import TrialFolder, best_generator, read_failures, read_records
from pipeline.training.events import EventKind, TrialEvent

SPACE = parse_space(
    "[fixed]\nkimg = 30\ntick_kimg = 1\n[search]\nlr_g = { float = [1e-5, 1e-2], log = true }\n"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB; skipped where this user may not mount one."""
    with tmpfs(tmp_path / "disk", "size=1m") as folder:
        yield folder


def fill(disk: Path) -> Path:
    """Fill the disk; returns the file that takes all its space."""
    ballast = disk / "ballast"
    with open(ballast, "ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    assert os.statvfs(disk).f_bavail == 0
    return ballast


def test_a_trial_goes_on_and_writes_what_waited(
    disk: Path, dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig]
) -> None:
    events: list[TrialEvent] = []
    folder = disk / "0"
    running = trial.run_trial(
        tiny(kimg=6), dataset, evaluator, folder, trial.TrialSettings(on_event=events.append)
    )
    first = next(running)
    ballast = fill(disk)
    during = [next(running) for _ in range(3)]
    state = TrialFolder(folder).restore()
    assert state is not None
    assert state["record"] == first.to_dict()
    assert [event.kind for event in events] == [EventKind.DISK_FULL]
    ballast.unlink()
    after = list(running)
    assert [event.kind for event in events] == [EventKind.DISK_FULL, EventKind.DISK_HAS_SPACE]
    assert read_records(folder) == [first, *during, *after]
    best = min([first, *during, *after], key=lambda record: record.fid or 0.0)
    assert best_generator(folder)[1]["kimg"] == best.kimg
    state = TrialFolder(folder, events.append).restore()
    assert state is not None
    assert state["record"] == after[-1].to_dict()
    assert len(events) == 2


def test_a_trial_that_is_killed_on_a_full_disk_goes_on_from_before(
    disk: Path, dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig]
) -> None:
    running = trial.run_trial(tiny(kimg=4), dataset, evaluator, disk / "0")
    first = next(running)
    ballast = fill(disk)
    next(running)
    running.close()
    ballast.unlink()
    again = list(trial.run_trial(tiny(kimg=4), dataset, evaluator, disk / "0"))
    assert again[0] == first
    assert [record.kimg for record in read_records(disk / "0")] == [1, 2, 3, 4]


def disk_levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The levels of what was logged about the disk: WARNING when it is full, INFO when it has space again."""
    return [record.levelname for record in caplog.records if record.name == "pipeline.storage.files"]


def test_the_event_log_keeps_what_the_disk_refused(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pipeline")
    event_log = EventLog(disk / "s" / "spool.jsonl")
    ballast = fill(disk)
    for number in range(50):
        assert event_log.start(number, f"trial-{number}", {"text": "x" * 200})
    assert not event_log.start(7, "trial-7", {})
    assert disk_levels(caplog) == ["WARNING"]
    ballast.unlink()
    event_log.start(50, "trial-50", {})
    events = [event for _, event in read_events(event_log.path) if event]
    assert [event["trial"] for event in events if event["event"] == "start"] == list(range(51))
    assert event_log.count == 52
    assert disk_levels(caplog) == ["WARNING", "INFO"]


def make_manager(root: Path, **changes: Any) -> TrialManager:
    config = SweepConfig(trials=40, pruner="none", **changes)
    paths = SweepPaths(root)
    return TrialManager(open_study("s", paths.study, config, SPACE), SPACE, config, paths)


def trials_in_file(disk: Path) -> list[Any]:
    """The trials of the study as another process reads them."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    backend = JournalFileBackend(str(disk / "s" / "study.journal"))
    return optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend)).trials


def test_the_study_goes_on_in_memory_and_catches_up(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pipeline")
    manager = make_manager(disk / "s")
    ballast = fill(disk)
    for number in range(4):
        assert manager.ask() is not None
        for kimg in range(1, 31):
            manager.report(factories.record(kimg, trial=number, objective=50.0 - kimg))
        manager.finish(number)
    assert disk_levels(caplog) == ["WARNING"]
    assert [one.state for one in manager.trials.values()] == ["complete"] * 4
    assert len(trials_in_file(disk)) < 4
    ballast.unlink()
    assert manager.ask() is not None
    trials = trials_in_file(disk)
    assert [len(one.intermediate_values) for one in trials] == [30, 30, 30, 30, 0]
    assert [one.value for one in trials] == [20.0] * 4 + [None]


def test_trials_that_never_reached_the_study_are_drawn_again(disk: Path) -> None:
    """The process ends while the disk is full: what it could not write is as if it had not happened."""
    manager = make_manager(disk / "s", sampler="random")
    ballast = fill(disk)
    drawn = [one.params for one in iter(manager.ask, None) if one]
    manager.record_failure(39, "exception", "a line for which there is no space")
    assert read_failures(disk / "s" / "trials" / "39") == []
    assert len(trials_in_file(disk)) < 40
    ballast.unlink()
    stale = TrialFolder(disk / "s" / "trials" / "39")
    stale.append(factories.record(5, 9.0, trial=39))
    again = list(filter(None, iter(make_manager(disk / "s", sampler="random").ask, None)))
    assert [one.number for one in again] == list(range(40))
    assert [one.params for one in again] == drawn
    assert not read_records(stale.root)


def test_a_small_write_does_not_end_the_outage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pipeline")
    space = DiskSpace("nothing is saved")
    for _ in range(2):
        with space.tolerate_full():
            raise OSError(errno.ENOSPC, "no space")
    assert space.full
    with space.tolerate_full(small=True):
        pass
    assert space.full
    with space.tolerate_full():
        pass
    assert not space.full
    assert disk_levels(caplog) == ["WARNING", "INFO"]
    with pytest.raises(OSError, match="other"), space.tolerate_full():
        raise OSError(errno.EIO, "other")
