"""The trial manager on a real Optuna journal, driven without Ray."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from trial_managers import make_manager, tick

from pipeline.records import PENALTY, TrialRecord
from pipeline.search.trial_manager import SweepTrial, rank_trials
from pipeline.training.balance import ONE_SIDED
from pipeline.training.checkpoint import Failure, TrialFolder


class CallLog:
    """A callback that keeps its calls."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []

    def on_start(self, trial: SweepTrial) -> None:
        self.events.append(("start", trial.number))

    def on_record(self, trial: SweepTrial, record: TrialRecord) -> None:
        self.events.append((f"record {record.kimg}", trial.number))

    def on_failure(self, trial: SweepTrial, failure: Failure) -> None:
        self.events.append((failure.kind, trial.number))

    def on_end(self, trial: SweepTrial) -> None:
        self.events.append((trial.state, trial.number))


def study_trials(root: Path) -> list[optuna.trial.FrozenTrial]:
    return make_manager(root).study.get_trials()


def test_the_enqueued_point_comes_first_then_draws_inside_the_space(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    first, second = manager.ask(), manager.ask()
    assert first is not None
    assert second is not None
    assert first.params == {"lr_g": 2e-4, "penalty": "r1", "gamma": 0.5}
    assert 1e-5 <= second.params["lr_g"] <= 1e-2


def test_a_parameter_is_drawn_only_when_its_condition_holds(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, sampler="random", trials=15)
    drawn = [trial.params for trial in iter(manager.ask, None) if trial]
    assert {p["penalty"] for p in drawn} == {"none", "r1"}
    assert all(("gamma" in p) == (p["penalty"] == "r1") for p in drawn)


def test_no_more_trials_start_than_asked_for(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, trials=3)
    assert [trial.number for trial in iter(manager.ask, None) if trial] == [0, 1, 2]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_reopened_search_draws_what_an_uninterrupted_one_draws(tmp_path: Path, sampler: str) -> None:
    def search(root: Path, reopen: bool) -> list[dict[str, object]]:
        manager, drawn = make_manager(root, sampler=sampler, seed=3), []
        for number in range(14):
            if reopen:
                manager = make_manager(root, sampler=sampler, seed=3)
            trial = manager.ask()
            assert trial is not None
            assert trial.number == number
            drawn.append(trial.params)
            manager.report(tick(number, 30, 100.0 + 50 * math.log10(trial.params["lr_g"])))
            manager.finish(number)
        return drawn

    assert search(tmp_path / "a", reopen=False) == search(tmp_path / "b", reopen=True)


def test_different_trials_of_one_seed_draw_different_points(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, sampler="random", trials=10)
    rates = [trial.params["lr_g"] for trial in iter(manager.ask, None) if trial]
    assert len(set(rates)) == len(rates)


def test_a_finished_trial_is_told_with_its_best_fid_not_its_last(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    manager.ask()
    manager.report(tick(0, 1, 50.0))
    manager.report(tick(0, 2, 80.0, objective=50.0, best_fid=50.0, best_kimg=1))
    manager.finish(0)
    (trial,) = study_trials(tmp_path)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 50.0)
    assert trial.intermediate_values == {1: 50.0, 2: 50.0}


@pytest.mark.parametrize(
    ("end", "state", "value"),
    [
        ("diverged at once", TrialState.PRUNED, PENALTY),
        ("diverged later", TrialState.PRUNED, 40.0),
        ("worker died", TrialState.FAIL, None),
        ("no report", TrialState.FAIL, None),
    ],
)
def test_every_end_is_told_to_optuna_and_to_callbacks_once(
    tmp_path: Path, end: str, state: TrialState, value: float | None
) -> None:
    calls = CallLog()
    manager = make_manager(tmp_path, calls)
    manager.ask()
    if end == "diverged later":
        assert not manager.report(tick(0, 1, 40.0))
    if end.startswith("diverged"):
        last = 40.0 if end == "diverged later" else None
        record = tick(0, 2, None, verdict="diverged", best_fid=last, objective=last or PENALTY)
        assert manager.report(record)
    manager.finish(0, "killed" if end == "worker died" else "")
    manager.finish(0)
    (trial,) = study_trials(tmp_path)
    assert (trial.state, trial.value) == (state, value)
    assert len([event for event, _ in calls.events if event in ("complete", "pruned", "failed")]) == 1
    assert manager.trials[0].cause


def test_asha_prunes_the_worst_and_keeps_the_best(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, pruner="asha")
    grace = 3  # 7 % of 30 kimg, rounded up
    ends = {}
    for number, fid in enumerate([10.0, 90.0, 80.0, 5.0]):
        manager.ask()
        for kimg in range(1, 31):
            if manager.report(tick(number, kimg, fid)):
                break
        manager.finish(number)
        ends[number] = (manager.trials[number].state, kimg)
    assert ends[0] == ("complete", 30)
    assert ends[1] == ("pruned", grace)
    assert ends[2] == ("pruned", grace)
    assert ends[3] == ("complete", 30)


def test_a_hopeless_trial_is_pruned_only_when_its_fid_does_not_fall(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, pruner="median")
    manager.ask()
    falling = [manager.report(tick(0, k, 100.0 - k, verdict="d_wins")) for k in range(1, 9)]
    standing = [
        manager.report(tick(0, k, 99.0, verdict="d_wins", objective=92.0, best_fid=92.0))
        for k in range(9, 15)
    ]
    assert not any(falling)
    assert any(standing)
    assert "hopeless" in manager.trials[0].cause


def test_running_trials_of_an_earlier_process_are_resumed_under_their_number(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, trials=3)
    manager.ask()
    trial = manager.ask()
    assert trial is not None
    manager.report(tick(0, 1, 9.0))
    TrialFolder(tmp_path / "trials" / "0").append(tick(0, 1, 9.0))

    calls = CallLog()
    again = make_manager(tmp_path, calls, trials=3)
    again.notify_history([calls])
    numbers = [trial.number for trial in iter(again.ask, None) if trial]
    assert numbers == [0, 1, 2]
    assert again.trials[1].params == trial.params
    again.report(tick(0, 1, 9.0))  # a resumed trial first repeats its records
    again.report(tick(0, 2, 8.0))
    again.finish(0)
    assert calls.events.count(("record 1", 0)) == 1
    assert study_trials(tmp_path)[0].intermediate_values == {1: 9.0, 2: 8.0}


def test_a_record_that_never_reached_the_study_is_reported_later(tmp_path: Path) -> None:
    make_manager(tmp_path).ask()
    TrialFolder(tmp_path / "trials" / "0").append(tick(0, 1, 9.0))
    again = make_manager(tmp_path)
    assert again.trials[0].records == []
    again.report(tick(0, 1, 9.0))
    again.finish(0)
    assert study_trials(tmp_path)[0].intermediate_values == {1: 9.0}


def test_a_spent_budget_starts_no_trial_and_prunes_the_running_ones(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, time_budget_sec=100.0, spent_sec=99.99)
    manager.ask()
    manager.report(tick(0, 1, 9.0))
    spent = make_manager(tmp_path, time_budget_sec=100.0, spent_sec=100.0)
    assert spent.should_stop()
    assert [trial.number for trial in iter(spent.ask, None) if trial] == [0]
    spent.close()
    (trial,) = study_trials(tmp_path)
    assert trial.state == TrialState.PRUNED
    assert "time budget" in trial.user_attrs["cause"]


def test_an_interrupted_search_leaves_its_trials_running_in_the_study(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    manager.ask()
    manager.report(tick(0, 1, 9.0))
    manager.interrupted = True
    manager.finish(0)
    manager.close()
    assert manager.ask() is None
    assert study_trials(tmp_path)[0].state == TrialState.RUNNING


def test_the_clock_stops_when_the_search_closes(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, spent_sec=7.0)
    manager.close()
    assert manager.seconds == manager.seconds >= 7.0


def test_rank_puts_trials_without_a_fid_last() -> None:
    trials = [
        SweepTrial(0, {}, records=[tick(0, 1, None)]),
        SweepTrial(1, {}, records=[tick(1, 1, 5.0), tick(1, 2, 7.0)]),
        SweepTrial(2, {}, records=[tick(2, 1, 6.0)]),
    ]
    assert [trial.number for trial in rank_trials(trials)] == [1, 2, 0]


def test_a_one_sided_balance_violates_the_samplers_constraint(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    for number, balance in enumerate([0.5, 0.01]):
        manager.ask()
        manager.report(tick(number, 1, 9.0, balance=balance))
        manager.finish(number)
    feasible, infeasible = (trial.constraints for trial in study_trials(tmp_path))
    assert all(value <= 0 for value in feasible.values())
    assert all(value > 0 for value in infeasible.values())


def test_a_suggestion_cut_short_by_a_kill_is_completed(tmp_path: Path) -> None:
    whole = make_manager(tmp_path / "whole", sampler="random", seed=5)
    drawn = [trial.params for trial in (whole.ask(), whole.ask()) if trial]
    broken = make_manager(tmp_path / "broken", sampler="random", seed=5)
    broken.ask()
    broken.study.ask()  # a kill before its parameters are suggested
    again = make_manager(tmp_path / "broken", sampler="random", seed=5)
    assert [trial.params for trial in (again.ask(), again.ask()) if trial] == drawn


def test_failures_are_kept_with_their_trial_and_notified(tmp_path: Path) -> None:
    calls = CallLog()
    manager = make_manager(tmp_path, calls)
    manager.ask()
    manager.report(tick(0, 3, 9.0))
    manager.on_worker_failure(0, "exception", "ValueError:\n  bad")
    manager.mark_hung(0, "no report in 700 s")
    manager.on_worker_failure(0, "worker killed", "its process is gone")
    again = make_manager(tmp_path, calls)
    assert [str(failure) for failure in again.trials[0].failures] == [
        "exception after 3 kimg: ValueError: bad",
        "hang after 3 kimg: no report in 700 s",
    ]
    again.notify_history([calls])
    assert calls.events.count(("hang", 0)) == 2
    with pytest.raises(ValueError, match="kind of failure: bad luck"):
        again.record_failure(0, "bad luck", "it rained")
    manager.finish(0, str(manager.trials[0].failures[-1]))
    assert study_trials(tmp_path)[0].user_attrs["cause"] == "hang after 3 kimg: no report in 700 s"


def test_every_complete_trial_has_the_constraint_that_gaussian_processes_need(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    for fid in (9.0, None):
        trial = manager.ask()
        assert trial is not None
        manager.report(tick(trial.number, 30, fid, balance=0.5))
        manager.finish(trial.number)
    assert [trial.constraints["balance"] for trial in study_trials(tmp_path)] == [ONE_SIDED - 0.5, ONE_SIDED]
