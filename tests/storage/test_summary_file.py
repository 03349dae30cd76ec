"""summary.json: what gansweep writes is accepted, everything else is refused with one line."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import factories
import pytest

from pipeline.errors import SweepError
from pipeline.storage.summary_file import (
    Best,
    FinalistBest,
    LeaderboardRow,
    parse_summary,
    read_summary,
)
from pipeline.storage.typed_json import to_json

AT = {"trial": 0, "fid": 3.0, "balance": 0.5, "kimg": 10, "params": {"lr_g": 1e-3, "loss": "hinge"}}
ROW = {
    **AT,
    "state": "complete",
    "last_kimg": 10,
    "verdict": "healthy",
    "stability": 1.0,
    "cause": "",
    "auc": 0.6,
}
FINAL = {
    "best": {
        **AT, "search_fid": 3.1, "fresh_fid": 3.2, "gap": 0.1,
        "trial_seed": 7, "fid_mean": 3.0, "fid_std": None,
    },
    "runs": [],
    "measurement": {"fid_low": 2.0, "fid_high": 4.0, "n": 9, "verdicts": [], "kid": 0.5, "modes": None},
}  # fmt: skip
GOOD: dict[str, Any] = {
    "name": "s",
    "state": "finished",
    "wall_seconds": 1.0,
    "kimg_total": 10,
    "trials": {"complete": 1, "pruned": 0, "failed": 0, "running": 0},
    "best": AT,
    "leaderboard": [ROW, {**ROW, "trial": 1, "fid": None, "balance": None, "kimg": None}],
    "finalists": [FINAL],
    "registered": {"name": "s", "version": "1", "alias": "champion", "uri": "models:/s/1", "reason": ""},
    "a key of a later version": [1, 2],
}


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for changes in ({}, {"best": None, "registered": None, "leaderboard": [], "finalists": []}):
        content = {**GOOD, **changes}
        summary = read_summary(write(tmp_path / "summary.json", content))
        assert summary is not None
        again = json.loads(summary.to_text())
        kept = content.keys() - {"a key of a later version"}
        assert {key: again[key] for key in kept} == {key: content[key] for key in kept}
        assert parse_summary(summary.to_text()) == summary


def test_missing_keys_of_an_older_file_have_defaults(tmp_path: Path) -> None:
    summary = read_summary(write(tmp_path / "summary.json", GOOD))
    assert summary is not None
    assert (summary.reason, summary.running, summary.cost, summary.evaluator.hash) == ("", (), None, "")


def test_the_best_trial_is_a_finalists_best_once_they_are_measured(tmp_path: Path) -> None:
    running = parse_summary(json.dumps(GOOD))
    final = parse_summary(json.dumps({**GOOD, "best": FINAL["best"]}))
    assert type(running.best) is Best
    assert type(final.best) is FinalistBest
    assert "search_fid" not in to_json(running.best)
    assert to_json(final.finalists[0].measurement) == FINAL["measurement"], "keys of other metrics too"


def test_a_row_has_the_numbers_of_the_best_tick_and_no_nan() -> None:
    records = [factories.record(5, 40.0, balance=math.nan), factories.record(10, 44.0, verdict="d_wins")]
    row = LeaderboardRow.of_records(3, records, state="pruned", params={}, cause="by asha")
    assert (row.fid, row.kimg, row.last_kimg, row.verdict) == (40.0, 5, 10, "d_wins")
    assert (row.stability, row.balance) == (pytest.approx(1.1), None)
    empty = LeaderboardRow.of_records(3, [], state="failed", params={}, cause="")
    assert (empty.fid, empty.kimg, empty.last_kimg, empty.stability) == (None, None, 0, None)


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    assert read_summary(tmp_path / "summary.json") is None
    assert read_summary(tmp_path / "no" / "summary.json") is None


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("state", "over"),
        ("wall_seconds", "long"),
        ("trials.complete", -1),
        ("trials.complete", 1.5),
        ("best.fid", None),
        ("best.params", [1]),
        ("best.params.lr_g", {}),
        ("leaderboard", {}),
        ("leaderboard.0.trial", "../../x"),
        ("leaderboard.0.fid", 1e300),
        ("leaderboard.0.state", 3),
        ("finalists.0.measurement.verdicts", None),
        ("registered", "models:/s/1"),
    ],
)
def test_values_of_other_types_are_refused_by_name(tmp_path: Path, where: str, value: Any) -> None:
    content = copy.deepcopy(GOOD)
    *parents, last = where.split(".")
    node: Any = content
    for key in parents:
        node = node[int(key) if key.isdigit() else key]
    node[last] = value
    with pytest.raises(SweepError, match="summary.json cannot be used") as caught:
        read_summary(write(tmp_path / "summary.json", content))
    assert parents == [] or parents[0] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": NaN}', "[" * 100_000, '{"name": "s"}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SweepError, match="summary.json cannot be used"):
        read_summary(write(tmp_path / "summary.json", text))
