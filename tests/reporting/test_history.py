"""A sweep read from its files: which run stands for the winner, which values a trial had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SweepError
from pipeline.reporting import history
from pipeline.reporting.history import History, TrialView
from pipeline.search.space.parser import parse_space

SPACE = parse_space('[fixed]\nkimg = 40\nloss = "hinge"\n[search]\nlr_g = { float = [1e-4, 1e-2] }')


def sweep(**summary: Any) -> History:
    trials = (
        TrialView(3, params={"lr_g": 5e-4}, fid=20.0),
        TrialView(1, params={"lr_g": 1e-3}, fid=21.0),
        TrialView(2),
    )
    return History(Path("tiny"), summary, trials, {}, SPACE)


def test_the_finals_choose_the_winner_and_its_run() -> None:
    assert sweep().winner == sweep().trials[0]
    runs = [{"seed": 7}, {"seed": 8}, {"seed": 9}]
    told = sweep(best={"trial": 1}, finalists=[{"best": {"trial": 1, "trial_seed": 9}, "runs": runs}])
    assert told.winner == told.trials[1]
    assert told.run_folder(told.trials[1]) == Path("tiny/finals/1-2"), (
        "trained again with its second other seed"
    )
    assert told.run_folder(told.trials[0]) == Path("tiny/trials/3")


def test_a_value_is_drawn_or_fixed_or_the_default() -> None:
    told = sweep()
    values = [told.value(told.trials[0], name) for name in ("lr_g", "loss", "penalty")]
    assert values == [5e-4, "hinge", "none"]
    assert told.full_kimg == 40
    assert [one.number for one in told.measured] == [3, 1]


def test_damaged_files_are_no_error_but_no_files_are(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"holds summary\.json"):
        history.read_history(tmp_path)
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
    told = history.read_history(tmp_path)
    assert [(one.number, one.fid, one.state) for one in told.trials] == [(1, None, ""), (4, None, "running")]
    assert told.trials[0].last_kimg == 5
    assert (told.space, told.full_kimg, told.winner) == (None, None, None)
