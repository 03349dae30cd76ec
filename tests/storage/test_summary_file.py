"""summary.json: what gansweep writes is accepted, everything else is refused with one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SweepError
from pipeline.storage.summary_file import read_summary

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
GOOD: dict[str, Any] = {
    "name": "s",
    "state": "finished",
    "wall_seconds": 1.0,
    "kimg_total": 10,
    "trials": {"complete": 1, "pruned": 0, "failed": 0, "running": 0},
    "best": AT,
    "leaderboard": [ROW, {**ROW, "trial": 1, "fid": None, "balance": None, "kimg": None}],
    "finalists": [
        {
            "best": {**AT, "search_fid": 3.1},
            "measurement": {"fid_low": 2.0, "fid_high": 4.0, "n": 9, "verdicts": []},
        }
    ],
    "registered": {"name": "s", "version": "1", "alias": "champion", "uri": "models:/s/1"},
    "a key of a later version": [1, 2],
}


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_summary(write(tmp_path / "summary.json", GOOD)) == GOOD
    none = {**GOOD, "best": None, "registered": None, "leaderboard": [], "finalists": []}
    assert read_summary(write(tmp_path / "summary.json", none)) == none


def test_a_missing_file_reads_as_empty(tmp_path: Path) -> None:
    assert read_summary(tmp_path / "summary.json") == {}
    assert read_summary(tmp_path / "no" / "summary.json") == {}


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
