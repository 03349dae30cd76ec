"""What a line and a block show; their wording is in golden_block.txt alone.

UPDATE_GOLDEN=1 rewrites the golden file.
"""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sweep_folders import summary_content, summary_of, write_running_sweep

from pipeline.reporting.live.drawing import render_block, render_line, sparkline, time_left
from pipeline.reporting.live.progress import SweepProgress
from pipeline.reporting.live.view import SweepSnapshot
from pipeline.storage.summary_file import parse_summary

GOLDEN = Path(__file__).with_name("golden_block.txt")


def block(root: Path, width: int = 100, encoding: str = "utf-8") -> str:
    """The block of the sweep in `root` on a console without colours."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(width=width, file=file)
    snapshot = SweepSnapshot(write_running_sweep(root), console)
    snapshot.refresh()
    console.print(snapshot.render())
    file.seek(0)
    return file.read()


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, "1:40"),  # five of ten in 100 s
        ({"time_budget_sec": 130.0}, "0:30"),
        ({"time_budget_sec": 90.0}, "0:00"),
        ({"trials_asked": 5}, "0:00"),
        ({"trials_asked": 100_000}, None),  # another bound ends it
        ({"trials": {"complete": 0, "pruned": 0, "failed": 0, "running": 2}}, None),
        ({"state": "finished"}, None),
    ],
)
def test_time_left(changes: dict[str, Any], left: str | None) -> None:
    found = re.search(r"\d+:\d\d", time_left(summary_of(**changes)))
    assert (found and found.group()) == left


def test_a_line_shows_counts_speed_best_trial_and_times() -> None:
    parts = render_line(summary_of()).split(" | ")
    counts, kimg, speed, best, times = (re.findall(r"[\d.:]+", part) for part in parts)
    assert counts == ["2", "3", "0", "1"]
    assert (kimg, speed) == (["120"], ["2.5"])
    assert best == ["12.35", "0.50", "4"]
    assert times == ["1:40", "1:40"]


def test_a_line_without_a_best_trial_and_of_the_least_summary() -> None:
    assert "no fid" in render_line(summary_of(best=None))
    no_balance = {**summary_content()["best"], "balance": None}
    assert "balance -" in render_line(summary_of(best=no_balance))
    required = ("name", "state", "wall_seconds", "kimg_total", "trials", "best", "leaderboard")
    least = parse_summary(json.dumps({key: summary_content()[key] for key in required}))
    assert "12.35" in render_line(least)


def test_a_block_shows_best_fids_running_and_ended_trials_and_the_cost(tmp_path: Path) -> None:
    lines = block(tmp_path).splitlines()
    assert re.search("80 \u2588\u2586\u2581 10", lines[3])
    assert lines[5].split()[0] == "5"
    assert lines[5].split()[2:] == ["10/40", "10.00", "0.01", "D", "ahead", "healthy"]
    assert re.search("trial 0 pruned .* 40.*by asha", lines[6])
    assert re.search("30 kimg.*2:06.*4.2 MB", lines[7])


def test_the_texts_of_one_sweep_are_the_golden_ones(tmp_path: Path) -> None:
    text = render_line(summary_of()) + "\n\n" + block(tmp_path)
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_what_one_more_hour_should_bring_is_in_the_line_and_the_block(tmp_path: Path) -> None:
    known = {"trials": 34, "needed": 12, "gain": 0.031, "chance": 0.6, "fid": 12.1}
    text = "one more hour: best fid -3.1 % (about 12.1), 60 % chance of any gain"
    assert text in render_line(summary_of(one_more_hour=known)).split(" | ")
    console = Console(width=100, file=io.StringIO())
    console.print(render_block(summary_of(one_more_hour=known), SweepProgress(tmp_path / "none")))
    assert text in console.file.getvalue().splitlines()
    assert "one more hour" not in render_line(summary_of(one_more_hour={"trials": 5, "needed": 12}))


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_block_never_wraps(tmp_path: Path, width: int) -> None:
    lines = block(tmp_path, width).splitlines()
    assert len(lines) == 8
    assert width < 60 or "10/40" in lines[5]
    assert max(map(len, lines)) <= width


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    text = block(tmp_path, encoding="ascii")
    assert text.isascii()
    assert "80 @*_ 10" in text
    assert "##........" in text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0], "_"),
        ([5.0, 5.0], "__"),
        ([100.0, 10.0, 1.0], "@+_"),
        ([3.0, 0.0], "@_"),
        ([2.0] * 99, "_" * 32),
    ],
)
def test_sparklines(values: list[float], text: str) -> None:
    assert sparkline(values, plain=True) == text


def test_a_sparkline_ends_with_the_last_value() -> None:
    assert sparkline([float(n) for n in range(100, 0, -1)], 10, plain=True)[-1] == "_"
