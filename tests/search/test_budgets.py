"""The bounds of a search as plain arithmetic, and in a trial manager on a real Optuna journal."""

from __future__ import annotations

from pathlib import Path

import pytest
from trial_managers import make_manager, tick

from pipeline.config import SweepConfig
from pipeline.errors import ConfigError
from pipeline.records import TrialRecord
from pipeline.search import budgets
from pipeline.search.expected_gain import PLATEAU_TRIALS
from pipeline.training.checkpoint import TrialFolder


@pytest.mark.parametrize(
    ("bounds", "usage", "by"),
    [
        ({}, {"seconds": 1e6, "gpu_hours": 1e6, "cost": 1e6, "failures": 99, "best_fid": 0.0}, None),
        ({"time_budget_sec": 60}, {"seconds": 59.9}, None),
        ({"time_budget_sec": 60}, {"seconds": 60.0}, "time_budget_sec"),
        ({"gpu_hours": 2}, {"gpu_hours": 2.0}, "gpu_hours"),
        ({"cost_budget": 5}, {"cost": 4.99}, None),
        ({"cost_budget": 5}, {"cost": 5.01}, "cost_budget"),
        ({"max_failures": 3}, {"failures": 2}, None),
        ({"max_failures": 3}, {"failures": 3}, "max_failures"),
        ({"target_fid": 10}, {"best_fid": None}, None),
        ({"target_fid": 10}, {"best_fid": 10.5}, None),
        ({"target_fid": 10}, {"best_fid": 10.0}, "target_fid"),
        ({}, {"plateau": 0.0}, None),
        ({"until_plateau": 1}, {"plateau": None}, None),
        ({"until_plateau": 1}, {"plateau": 0.01}, None),
        ({"until_plateau": 1}, {"plateau": 0.0099}, "until_plateau"),
    ],
)
def test_a_bound_is_met_exactly_at_its_value(
    bounds: dict[str, float], usage: dict[str, float], by: str | None
) -> None:
    met = budgets.budget_reached(SweepConfig(**bounds), budgets.Usage(**usage))  # type: ignore[arg-type]
    assert (met[0] if met else None) == by


def test_prices_are_read_and_multiply_resources() -> None:
    prices = budgets.parse_prices(" gpu=2.5, cpu=0.05")
    assert prices == {"gpu": 2.5, "cpu": 0.05}
    assert budgets.hourly_price(prices, cpus=4, gpus=0.5) == pytest.approx(1.45)
    assert budgets.hourly_price({}, 4, 1) == 0


@pytest.mark.parametrize("text", ["gpu", "gpu=", "gpu=x", "gpu=-1", "gpu=nan", "=3", "gup=2"])
def test_a_wrong_price_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--price"):
        budgets.parse_prices(text)


def test_a_cost_budget_without_prices_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="--cost-budget is given without the price of an hour: no --price; add"
    ):
        budgets.check_budgets(SweepConfig(cost_budget=3))
    budgets.check_budgets(SweepConfig(cost_budget=3, price="cpu=1"))


def record(trial: int, kimg: int, fid: float, seconds: float) -> TrialRecord:
    """A record of a trial that has taken `seconds` since its start."""
    return tick(trial, kimg, fid, train_seconds=seconds * 0.75, eval_seconds=seconds * 0.25)


def test_cost_is_summed_over_trials_and_over_processes(tmp_path: Path) -> None:
    """A trial's seconds count from its start: the last record of each has its whole time."""
    options = {"price": "gpu=2,cpu=1", "cost_budget": 5.0}
    manager = make_manager(tmp_path, **options)
    manager.gpus_per_trial = 0.5
    for number, ends in ((0, (1800, 3600)), (1, (3600,))):
        assert manager.ask() is not None
        for kimg, seconds in enumerate(ends, start=1):
            row = record(number, kimg, 50.0, seconds)
            TrialFolder(tmp_path / f"trials/{number}").append(row)
            manager.report(row)
    assert manager.gpu_hours == pytest.approx(1.0)  # two hours of half a GPU
    assert manager.cost == pytest.approx(4.0)  # two hours of a core and half a GPU
    assert not manager.should_stop()
    again = make_manager(tmp_path, **options)
    again.gpus_per_trial = 0.5
    assert again.cost == pytest.approx(4.0)
    again.report(record(0, 3, 50.0, 3600 + 1800))
    assert again.cost == pytest.approx(5.0)
    assert (again.should_stop(), again.stopped_by) == (True, "cost_budget")
    again._resumed.clear()
    assert again.ask() is None


def test_the_target_fid_stops_the_search(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, target_fid=10.0)
    manager.ask()
    manager.report(record(0, 1, 10.1, 1))
    assert not manager.should_stop()
    manager.report(record(0, 2, 9.9, 2))
    assert manager.should_stop()
    assert (manager.stopped_by, manager.reason) == ("target_fid", "fid 9.9 reached the target of 10")


def test_too_many_failures_stop_the_search(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, max_failures=2)
    for number in range(2):
        assert not manager.should_stop()
        manager.ask()
        manager.finish(number, "boom")
    assert manager.should_stop()
    assert manager.stopped_by == "max_failures"


def test_a_plateau_stops_the_search_and_not_before_enough_trials_have_ended(tmp_path: Path) -> None:
    """Every trial is run by a process of its own, ten minutes of search after the one before."""
    for number in range(PLATEAU_TRIALS):
        manager = make_manager(tmp_path, spent_sec=600.0 * number, until_plateau=1.0, trials=99)
        assert not manager.should_stop(), number
        assert manager.ask() is not None
        row = record(number, 1, 10.0, 500.0)
        TrialFolder(tmp_path / f"trials/{number}").append(row)
        manager.report(row)
        manager.finish(number)
    assert (manager.should_stop(), manager.stopped_by) == (True, "until_plateau")
    assert manager.reason == "one more hour should lower fid by at most 0 %, less than 1 % (--until-plateau)"
    assert manager.ask() is None
