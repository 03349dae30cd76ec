"""The live view from a summary alone."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.config import SweepPaths
from pipeline.files import write_text
from pipeline.view import View, block, clock, left, line


def summary(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": "digits",
        "trials": {"complete": 2, "pruned": 3, "failed": 0, "running": 1},
        "trials_asked": 10,
        "time_budget_sec": 0.0,
        "best": {"trial": 4, "fid": 12.345, "balance": 0.5},
        "running": [{"trial": 5, "fid": None, "balance": 0.25, "last_kimg": 10, "verdict": "healthy"}],
        "kimg_total": 120,
        "images_per_sec": 2500.0,
        "wall_seconds": 100.0,
    }
    return {**content, **changes}


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.9, "1:01"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ", about 1:40 left"),  # five of ten in 100 s
        ({"time_budget_sec": 130.0}, ", about 0:30 left"),
        ({"time_budget_sec": 90.0}, ", about 0:00 left"),
        ({"trials": {"complete": 0, "pruned": 0, "failed": 0, "running": 2}}, ""),
        ({"trials_asked": 5}, ", about 0:00 left"),
    ],
)
def test_time_left(changes: dict[str, Any], text: str) -> None:
    assert left(summary(**changes)) == text


def test_a_line_says_all() -> None:
    assert line(summary()) == (
        "2 done, 3 pruned, 0 failed, 1 running | best fid 12.35 (balance 0.50, trial 4) | 120 kimg"
        " | 2.5 kimg/s | 1:40, about 1:40 left"
    )
    assert "no fid yet" in line(summary(best=None))


def test_a_block_has_a_row_per_running_trial() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(block(summary()))
    text = console.export_text()
    assert "digits\n2 done" in text
    assert text.splitlines()[-1].split() == ["5", "10", "-", "0.25", "healthy"]


def test_a_view_says_each_state_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.view._LINE_SEC", 0.01)
    paths, said = SweepPaths(tmp_path), []
    with View(paths, live=False, say=said.append):
        for kimg in (1, 2):
            write_text(paths.summary, json.dumps(summary(kimg_total=kimg)))
            time.sleep(0.2)
    assert [text.split(" | ")[2] for text in said] == ["1 kimg", "2 kimg"]
