"""A disk that is really full, a small tmpfs: nothing stops, and what waited is written in the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import SweepConfig, SweepPaths, TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics.frechet import Evaluator
from pipeline.search.space.parser import parse_space
from pipeline.search.study import open_study
from pipeline.search.trial_manager import TrialManager
from pipeline.tracking.event_log import EventLog, read_events
from pipeline.training import trial
from pipeline.training.checkpoint import TrialFolder, best_generator, read_failures, read_records

SPACE = parse_space(
    "[fixed]\nkimg = 30\ntick_kimg = 1\n[search]\nlr_g = { float = [1e-5, 1e-2], log = true }\n"
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except OSError as error:
        pytest.skip(f"no tmpfs can be mounted: {error}")
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, timeout=10)


def fill(disk: Path) -> Path:
    """Take all that is left; returns the file that does."""
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
    said: list[str] = []
    folder = disk / "0"
    running = trial.run_trial(tiny(kimg=6), dataset, evaluator, folder, say=said.append)
    first = next(running)
    ballast = fill(disk)
    during = [next(running) for _ in range(3)]
    state = TrialFolder(folder).restore()
    assert state is not None
    assert state["record"] == first.to_dict()
    assert [text for text in said if "full" in text] == said
    assert len(said) == 1
    ballast.unlink()
    after = list(running)
    assert len(said) == 2
    assert "space again" in said[1]
    assert read_records(folder) == [first, *during, *after]
    best = min([first, *during, *after], key=lambda record: record.fid or 0.0)
    assert best_generator(folder)[1]["kimg"] == best.kimg
    files = TrialFolder(folder)
    state = files.restore()
    assert state is not None
    assert state["record"] == after[-1].to_dict()
    assert files.damaged == []


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


def test_the_spool_holds_what_the_disk_refused(disk: Path) -> None:
    said: list[str] = []
    spool = EventLog(disk / "s" / "spool.jsonl", said.append)
    ballast = fill(disk)
    for number in range(50):
        assert spool.start(number, f"trial-{number}", {"text": "x" * 200})
    assert not spool.start(7, "trial-7", {})
    assert len(said) == 1
    ballast.unlink()
    spool.start(50, "trial-50", {})
    numbers = [event["trial"] for _, event in read_events(spool.path) if event and event["event"] == "start"]
    assert numbers == list(range(51))
    assert spool.count == 52
    assert len(said) == 2


def ledger(root: Path, say: Callable[[str], None] = print, **plan: Any) -> TrialManager:
    config = SweepConfig(trials=40, pruner="none", **plan)
    paths = SweepPaths(root)
    return TrialManager(open_study("s", paths.study, config, SPACE, say), SPACE, config, paths, say=say)


def test_the_study_goes_on_in_memory_and_catches_up(disk: Path, tmp_path: Path) -> None:
    from test_search import record

    said: list[str] = []
    book = ledger(disk / "s", said.append)
    ballast = fill(disk)
    for number in range(4):
        assert book.ask() is not None
        for kimg in range(1, 31):
            book.report(record(number, kimg, 50.0 - kimg))
        book.finish(number)
    assert len(said) == 1
    assert [entry.state for entry in book.entries.values()] == ["complete"] * 4
    assert len(ledger_of(disk)) < 4  # the file knows less
    ballast.unlink()
    assert book.ask() is not None
    trials = ledger_of(disk)
    assert [len(t.intermediate_values) for t in trials] == [30, 30, 30, 30, 0]
    assert [t.value for t in trials] == [20.0] * 4 + [None]


def ledger_of(disk: Path) -> list[Any]:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    backend = JournalFileBackend(str(disk / "s" / "study.journal"))
    return optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend)).trials


def test_what_never_reached_the_study_is_asked_again(disk: Path) -> None:
    """The process ends while the disk is full: its last trials are as if they had never been."""
    from test_search import record

    book = ledger(disk / "s", sampler="random")
    ballast = fill(disk)
    drawn = [entry.params for entry in iter(book.ask, None) if entry]
    book.note(39, "exception", "a line for which there is no space")
    assert read_failures(disk / "s" / "trials" / "39") == []
    assert len(ledger_of(disk)) < 40
    ballast.unlink()
    stale = TrialFolder(disk / "s" / "trials" / "39")
    stale.append(record(39, 5, 9.0))
    again = ledger(disk / "s", sampler="random")
    entries = [entry for entry in iter(again.ask, None) if entry]
    assert [entry.number for entry in entries] == list(range(40))
    assert [entry.params for entry in entries] == drawn
    assert not read_records(stale.root)
