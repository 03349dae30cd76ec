"""A sweep read from its files: the winner and its run, the values of a trial, damaged and missing files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import factories
import pytest
from histories import bare_trial, finalist_row, trial_view
from sweep_folders import summary_of

from pipeline.errors import SweepError
from pipeline.reporting.history import History, differing_params, read_history, trial_views
from pipeline.search.space.parser import parse_space
from pipeline.storage.summary_file import LeaderboardRow
from pipeline.tracking.event_log import Event

SPACE = parse_space('[fixed]\nkimg = 40\nloss = "hinge"\n[search]\nlr_g = { float = [1e-4, 1e-2] }')


def sweep(**summary: Any) -> History:
    trials = (
        bare_trial(3, params={"lr_g": 5e-4}, fid=20.0),
        bare_trial(1, params={"lr_g": 1e-3}, fid=21.0),
        bare_trial(2),
    )
    return History(Path("tiny"), summary_of(**{"best": None, **summary}), trials, {}, SPACE)


def test_the_finalists_decide_the_winner_and_its_run() -> None:
    assert sweep().winner == sweep().trials[0]
    final = finalist_row(1, 22.0, 21.0, 23.0)
    final["best"]["trial_seed"] = 9
    runs = [{"seed": seed, "fid": 22.0} for seed in (7, 8, 9)]
    history = sweep(best=final["best"], finalists=[{**final, "runs": runs}])
    assert history.winner == history.trials[1]
    assert history.run_folder(history.trials[1]) == Path("tiny/finals/1-2"), (
        "the second rerun has the best seed"
    )
    assert history.run_folder(history.trials[0]) == Path("tiny/trials/3")


def test_a_value_is_suggested_or_fixed_or_the_default() -> None:
    history = sweep()
    values = [history.value(history.trials[0], name) for name in ("lr_g", "loss", "penalty")]
    assert values == [5e-4, "hinge", "none"]
    assert history.full_kimg == 40
    assert [trial.number for trial in history.measured] == [3, 1]
    assert history.points == [({"lr_g": 1e-3}, 21.0), ({"lr_g": 5e-4}, 20.0)]


def test_damaged_files_are_no_error_but_missing_ones_are(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"no sweep in .*holds a summary\.json"):
        read_history(tmp_path)
    (tmp_path / "trials" / "1").mkdir(parents=True)
    (tmp_path / "trials" / "1" / "records.jsonl").write_bytes(
        b'\xff{]\n{"trial": 1, "kimg": 5, "verdict": "x"}\n'
    )
    (tmp_path / "sweep.toml").write_text(
        "[space.fixed]\nno_such = 1\n[space.search]\nlr_g = { float = [0, 1] }"
    )
    (tmp_path / "spool.jsonl").write_bytes(
        b"\xff\xfe{]\n" + b'{"event": "start", "trial": 4, "params": {"a": 1}}\n'
    )
    history = read_history(tmp_path)
    assert [(trial.number, trial.fid, trial.state) for trial in history.trials] == [
        (1, None, ""),
        (4, None, "running"),
    ]
    assert history.trials[0].last_kimg == 5
    assert (history.space, history.full_kimg, history.winner) == (None, None, None)


def test_trials_that_the_summary_leaves_out_come_from_events_and_records() -> None:
    row = LeaderboardRow(
        trial=2, state="complete", fid=12.5, balance=0.5, kimg=10, params={"lr_g": 1e-3}
    )  # fmt: skip
    records = {0: [factories.record(5, 40.0), factories.record(10, 44.0, verdict="d_wins")]}
    events: list[Event] = [
        {"event": "start", "trial": 0, "params": {"lr_g": 1e-4}},
        {"event": "start", "trial": 1, "params": {}},
        {"event": "start", "trial": 3, "params": {}},
        {"event": "end", "trial": 0, "status": "KILLED", "cause": "pruned by asha"},
        {"event": "end", "trial": 3, "status": "FAILED"},
    ]
    views = trial_views(dataclasses.replace(summary_of(), leaderboard=(row,)), records, events)
    assert [(view.number, view.state, view.fid) for view in views] == [
        (2, "complete", 12.5), (0, "pruned", 40.0), (1, "running", None), (3, "failed", None)
    ]  # fmt: skip
    pruned = views[1]
    assert (pruned.kimg, pruned.last_kimg, pruned.stability) == (5, 10, pytest.approx(1.1))
    assert (pruned.verdict, pruned.cause, pruned.params) == ("d_wins", "pruned by asha", {"lr_g": 1e-4})


def test_an_older_sweep_gets_its_expected_gain_from_the_work_of_its_trials() -> None:
    """Twelve trials of equal work in two hours: six an hour."""
    trials = tuple(trial_view(number, [30.0, 20.0 + number]) for number in range(12))
    history = History(Path("tiny"), summary_of(wall_seconds=7200.0, best=None), trials)
    assert history.one_more_hour.trials_per_hour == pytest.approx(6.0)
    assert history.one_more_hour.trials == 12
    known = {"trials": 34, "needed": 12, "gain": 0.031, "chance": 0.6, "fid": 12.1}
    newer = dataclasses.replace(history, summary=summary_of(one_more_hour=known))
    assert newer.one_more_hour.gain == 0.031


def test_parameters_of_some_trials_only_differ() -> None:
    trials = [bare_trial(0, params={"loss": "hinge", "gamma": 1.0}), bare_trial(1, params={"loss": "hinge"})]
    assert differing_params(trials) == ["gamma"]
