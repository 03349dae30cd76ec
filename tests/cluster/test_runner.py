"""The interval between the reports of trials, chosen once per sweep; how a search is interrupted."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import ray
from factories import record

from pipeline.cluster import runner
from pipeline.cluster.messages import Suggestion
from pipeline.cluster.runner import choose_tick
from pipeline.cluster.stop_signals import StopSignals, interrupt
from pipeline.config import SweepConfig, SweepPaths
from pipeline.data.dataset import Dataset
from pipeline.metrics.frechet import Evaluator
from pipeline.search.resources import TrialResources
from pipeline.search.space.parser import parse_space
from pipeline.search.study import open_study
from pipeline.search.trial_manager import TrialManager
from pipeline.training.trial_speed import TrialSpeed
from pipeline.user_code import UserCode

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


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_that_returns_without_a_report_does_not_end_the_search(manager: TrialManager) -> None:
    """As one does that is stopped before its first report: Tune misses its metric."""
    manager.config = SweepConfig(name="x", trials=2)
    with runner._ray("local"):
        runner.run_tune(manager, lambda suggested: None, TrialResources(concurrency=1))
    assert [trial.cause for trial in manager.trials.values()] == ["ended without a report"] * 2


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_in_a_thread_ends_when_it_is_interrupted(
    tmp_path: Path, dataset: Dataset, evaluator: Evaluator
) -> None:
    endless = SPACE.override({"kimg": 10**6, "tick_kimg": 1, "width_g": 4, "width_d": 4, "z_dim": 8})
    config, paths = SweepConfig(name="x", concurrency=1, pruner="none"), SweepPaths(tmp_path)
    manager = TrialManager(open_study("x", paths.study, config, endless), endless, config, paths)

    def run() -> None:
        with StopSignals(manager) as signals, runner.ray_search(manager) as search:
            signals.ray_started()
            search.run(dataset, evaluator, UserCode())

    with ThreadPoolExecutor(1) as threads:
        search = threads.submit(run)
        while not search.done() and not any(trial.records for trial in manager.trials.values()):
            time.sleep(0.1)
        interrupt(manager)
        search.result(60)
    assert [trial.state for trial in manager.trials.values()] == ["running"], "it goes on at a resume"
    assert not ray.is_initialized()


class _Broken(optuna.pruners.BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        raise ZeroDivisionError("a pruner of the user's own")


@pytest.mark.ray
@pytest.mark.slow
def test_an_error_of_the_pruner_ends_the_search_as_it_is(manager: TrialManager) -> None:
    manager.config, manager.study.pruner = SweepConfig(name="x", trials=1), _Broken()
    first = record(10, trial=0)

    def report_once(suggested: Suggestion) -> None:  # in here, to be pickled by value
        ray.tune.report({"objective": first.objective, "record": first})

    with runner._ray("local"), pytest.raises(ZeroDivisionError, match="of the user's own"):
        runner.run_tune(manager, report_once, TrialResources(concurrency=1))
