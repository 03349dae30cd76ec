"""How much disk a sweep takes, and what is said where that is not there."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pipeline.config import SweepConfig
from pipeline.errors import SweepError
from pipeline.search.space.builtin import load_space
from pipeline.storage.folders import Folder
from pipeline.sweep import disk
from pipeline.sweep.disk import DiskNeed, check_disk, disk_needed
from pipeline.training.networks.blocks import ImageShape

NEED = DiskNeed(trial=1_000, running=3_000, trials=10)  # beside the 8 MB of every sweep


def check(monkeypatch: pytest.MonkeyPatch, free: int, *, new: bool = True) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda path: free)
    check_disk(NEED, Folder(Path("/tmp/runs"), "--out", "choose another --out"), new=new)


def test_a_smoke_sweep_fits_on_a_disk_of_24_mib() -> None:
    need = disk_needed(load_space("smoke"), SweepConfig(trials=2), ImageShape(28, 1, 10))
    assert need.first < 24 * 2**20 - 3_000_000


def test_a_sweep_that_a_budget_ends_has_no_total() -> None:
    need = disk_needed(load_space("smoke"), SweepConfig(time_budget_sec=60), ImageShape(28, 1, 10))
    assert need.trials == 0
    assert "in all" not in str(need)
    assert "10.0 kB in all" in str(NEED)


def test_no_room_for_one_trial_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SweepError, match=r"--out has too little space: 8.0 MB free at /tmp .*one trial may take 8.0 MB"
    ):
        check(monkeypatch, 8_003_000)


def test_no_room_for_all_trials_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check(monkeypatch, 8_012_000)
    assert "has 8.0 MB free at /tmp, and 10 trials may take 8.0 MB: free some, or choose" in caplog.text
    caplog.clear()
    check(monkeypatch, 8_014_000)
    assert not caplog.records


def test_a_sweep_that_exists_goes_on_without_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    check(monkeypatch, 8_003_000, new=False)
    assert "and a trial may take 8.0 MB" in caplog.text
    caplog.clear()
    check(monkeypatch, 8_004_000, new=False)
    assert not caplog.records
