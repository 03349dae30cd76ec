"""The interval between the reports of trials, chosen once per sweep."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from pipeline.cluster.runner import choose_tick
from pipeline.config import SweepConfig, SweepPaths
from pipeline.search.space.parser import parse_space
from pipeline.search.trial_manager import TrialManager
from pipeline.training.trial_speed import TrialSpeed

SPACE = parse_space(
    """
    [fixed]
    kimg = 240
    tick_kimg = 10
    [search]
    batch_size = { choice = [64, 2048] }
    n_critic = { choice = [1, 5] }
    """
)
FAST, SLOW = TrialSpeed(8, 0.01, 0.1), TrialSpeed(1, 10.0, 1.0)


@pytest.fixture
def manager(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> TrialManager:
    caplog.set_level("INFO", "pipeline")
    return TrialManager(optuna.create_study(), SPACE, SweepConfig(name="x"), SweepPaths(tmp_path))


def test_the_interval_between_reports_is_chosen_once(
    manager: TrialManager, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = choose_tick(manager, FAST)
    assert chosen == {"tick_kimg": 20}
    (line,) = caplog.messages
    assert line.startswith("trials report every 20 kimg: 10 would take less than 2 s")
    for speed in (SLOW, None, FAST):  # resumed on another machine, with another fraction of a GPU
        assert choose_tick(manager, speed) == chosen


@pytest.mark.parametrize("speed", [SLOW, None])
def test_a_sweep_that_began_with_the_interval_of_its_space_keeps_it(
    manager: TrialManager, caplog: pytest.LogCaptureFixture, speed: TrialSpeed | None
) -> None:
    assert choose_tick(manager, speed) == {}
    assert choose_tick(manager, FAST) == {}
    assert caplog.messages == []


def test_trials_without_a_chosen_interval_go_on_as_they_began(manager: TrialManager) -> None:
    begun: Any = SimpleNamespace()
    manager.trials[0] = begun
    assert choose_tick(manager, FAST) == {}
