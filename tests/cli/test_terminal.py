"""How the outcome of a sweep is printed and becomes an exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from sweep_folders import summary_of

from pipeline.cli import terminal
from pipeline.sweep.result import Result


def result(state: str, **summary: Any) -> Result:
    return Result(
        name="s",
        state=state,
        folder=Path("runs/s"),
        location="runs/with space",
        tracking_uri="sqlite:///mlflow.db",
        resume_command="gansweep resume 'runs/with space'",
        summary=summary_of(**{"best": None, **summary}),
        plan=(("sweep", "runs/[red]/s"),),
    )


def test_an_interrupted_sweep_exits_with_130_and_the_command_to_resume(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as done:
        terminal.conclude(result("interrupted"))
    assert done.value.exit_code == 130
    assert "gansweep resume 'runs/with space'" in capsys.readouterr().err


def test_a_dry_run_prints_its_plan(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.conclude(result("planned"))
    assert capsys.readouterr().out.split() == ["sweep", "runs/[red]/s"]


def test_a_sweep_without_a_fid_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as done:
        terminal.conclude(result("finished"))
    assert done.value.exit_code == 1
    assert "no trial has a fid" in capsys.readouterr().err


def test_what_was_asked_for_and_not_done_exits_with_1_and_the_command_that_completes_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    best = {"trial": 4, "fid": 12.345, "balance": 0.5, "kimg": 20, "params": {}}
    undone = replace(result("failed", best=best), undone=("no version was registered: it is away",))
    with pytest.raises(typer.Exit) as done:
        terminal.conclude(undone)
    assert done.value.exit_code == 1
    assert capsys.readouterr().err.splitlines() == [
        "no version was registered: it is away",
        "complete it with: gansweep resume 'runs/with space'",
    ]


def test_progress_off_a_terminal_is_a_line_per_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress() as advance:
        for done in range(0, 101, 5):
            advance(done, 100)
    lines = capsys.readouterr().err.split("\n")[:-1]
    assert lines == [f"{done} of 100 images" for done in range(10, 101, 10)]
