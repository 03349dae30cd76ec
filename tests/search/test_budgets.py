"""The bounds of a search as plain arithmetic, and in a ledger on a real Optuna journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import ConfigError
from pipeline.records import METRICS, PENALTY, TrialRecord
from pipeline.search import budgets
from pipeline.search.space.parser import parse_space
from pipeline.search.study import open_study
from pipeline.search.trial_manager import TrialManager

SPACE = parse_space("[fixed]\nkimg = 30\ntick_kimg = 1\n[search]\nlr_g = { float = [1e-5, 1e-2] }\n")


@pytest.mark.parametrize(
    ("plan", "use", "by"),
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
    ],
)
def test_a_bound_is_met_exactly_where_it_lies(
    plan: dict[str, float], use: dict[str, float], by: str | None
) -> None:
    met = budgets.budget_reached(SweepConfig(**plan), budgets.Usage(**use))  # type: ignore[arg-type]
    assert (met.by if met else None) == by


def test_prices_are_read_and_multiply_shares() -> None:
    known = budgets.prices(" gpu=2.5, cpu=0.05")
    assert known == {"gpu": 2.5, "cpu": 0.05}
    assert budgets.hourly_price(known, cpus=4, gpus=0.5) == pytest.approx(1.45)
    assert budgets.hourly_price({}, 4, 1) == 0


@pytest.mark.parametrize("text", ["gpu", "gpu=", "gpu=x", "gpu=-1", "gpu=nan", "=3", "gup=2"])
def test_a_wrong_price_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="--price"):
        budgets.prices(text)


def test_money_without_prices_is_refused() -> None:
    with pytest.raises(ConfigError, match="--cost-budget needs the price of an hour; got no --price; add"):
        budgets.check_budgets(SweepConfig(cost_budget=3))
    budgets.check_budgets(SweepConfig(cost_budget=3, price="cpu=1"))


def record(trial: int, kimg: int, fid: float, seconds: float) -> TrialRecord:
    numbers = dict.fromkeys(METRICS, 0.5)
    best = {"fid": fid, "best_fid": fid, "best_kimg": kimg, "objective": min(fid, PENALTY)}
    took = {"train_seconds": seconds * 0.75, "eval_seconds": seconds * 0.25}
    return TrialRecord.from_dict(
        {**numbers, "trial": trial, "kimg": kimg, "verdict": "healthy", **best, **took}
    )


def ledger(root: Path, **plan: object) -> TrialManager:
    config = SweepConfig(**{"trials": 9, "pruner": "none", **plan})  # type: ignore[arg-type]
    paths = SweepPaths(root)
    book = TrialManager(
        open_study("s", paths.study, config, SPACE), SPACE, config, paths, say=lambda text: None
    )
    book.gpus_per_trial = 0.5
    return book


def test_money_is_summed_over_trials_and_over_processes(tmp_path: Path) -> None:
    """A trial's seconds count since it began: the last record of each is its whole time."""
    from pipeline.training.checkpoint import TrialFolder

    plan = {"price": "gpu=2,cpu=1", "cost_budget": 5.0}
    book = ledger(tmp_path, **plan)
    for number, ends in ((0, (1800, 3600)), (1, (3600,))):
        assert book.ask() is not None
        for kimg, seconds in enumerate(ends, start=1):
            row = record(number, kimg, 50.0, seconds)
            TrialFolder(tmp_path / f"trials/{number}").append(row)
            book.report(row)
    assert book.gpu_hours == pytest.approx(1.0)  # two hours of half a GPU
    assert book.cost == pytest.approx(4.0)  # two hours of a core and half a GPU
    assert not book.over()
    again = ledger(tmp_path, **plan)
    assert again.cost == pytest.approx(4.0)
    again.report(record(0, 3, 50.0, 3600 + 1800))
    assert again.cost == pytest.approx(5.0)
    assert (again.over(), again.stopped_by) == (True, "cost_budget")
    again._readopted.clear()
    assert again.ask() is None


def test_a_fid_that_is_good_enough_ends_the_search(tmp_path: Path) -> None:
    book = ledger(tmp_path, target_fid=10.0)
    book.ask()
    book.report(record(0, 1, 10.1, 1))
    assert not book.over()
    book.report(record(0, 2, 9.9, 2))
    assert book.over()
    assert (book.stopped_by, book.reason) == ("target_fid", "fid 9.9 reached the target of 10")


def test_failures_end_the_search(tmp_path: Path) -> None:
    book = ledger(tmp_path, max_failures=2)
    for number in range(2):
        assert not book.over()
        book.ask()
        book.finish(number, "boom")
    assert book.over()
    assert book.stopped_by == "max_failures"
