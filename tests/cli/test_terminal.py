"""What is printed on stderr for log lines, and how the outcome of a sweep becomes an exit code."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from pipeline.cli import terminal
from pipeline.sweep.request import Outcome

log = logging.getLogger("pipeline.tests")

LONG = "word " * 100


@pytest.fixture(autouse=True)
def _no_handlers_yet() -> None:
    logging.getLogger("pipeline").handlers.clear()


def test_info_is_a_plain_line_and_a_warning_has_a_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.log_to_terminal()
    log.info("images: digits")
    log.warning("the disk is full")
    log.debug("a detail")
    out, err = capsys.readouterr()
    assert err.splitlines() == ["images: digits", "warning: the disk is full"]
    assert out == ""


def test_lines_are_not_folded_and_brackets_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.log_to_terminal()
    log.info(LONG)
    log.warning("%s", LONG)
    log.info("shape [bold] [3, 4]")
    assert capsys.readouterr().err.splitlines() == [LONG, f"warning: {LONG}", "shape [bold] [3, 4]"]


def test_quiet_leaves_out_info_and_keeps_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.log_to_terminal(quiet=True)
    log.info("images: digits")
    log.warning("the disk is full")
    log.error("worse")
    assert capsys.readouterr().err.splitlines() == ["warning: the disk is full", "warning: worse"]


def test_a_second_call_changes_the_level_and_prints_no_line_twice(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.log_to_terminal(quiet=True)
    terminal.log_to_terminal()
    log.info("once")
    assert capsys.readouterr().err.splitlines() == ["once"]


def test_info_is_dim_on_a_terminal_and_a_warning_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    colours = Console(file=screen, force_terminal=True, color_system="standard", soft_wrap=True, width=40)
    monkeypatch.setattr(terminal, "err_console", colours)
    terminal.log_to_terminal()
    log.info("quiet words")
    log.warning("loud words")
    dim, warning = screen.getvalue().splitlines()
    assert dim == "\x1b[2mquiet words\x1b[0m"
    assert warning == "warning: loud words"


def outcome(state: str, **summary: Any) -> Outcome:
    content = {"leaderboard": [], "finalists": [], "best": None, **summary}
    return Outcome(
        state, Path("runs/s"), content, "sqlite:///mlflow.db", "runs/with space", (("space", "x"),)
    )


def test_an_interrupted_sweep_exits_with_130_and_the_command_to_resume(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as done:
        terminal.conclude(outcome("interrupted"))
    assert done.value.exit_code == 130
    assert "gansweep resume 'runs/with space'" in capsys.readouterr().err


def test_a_dry_run_prints_its_plan(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.conclude(outcome("planned"))
    assert capsys.readouterr().out.split() == ["space", "x"]


def test_a_sweep_without_a_fid_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as done:
        terminal.conclude(outcome("finished"))
    assert done.value.exit_code == 1
    assert "no trial has a fid" in capsys.readouterr().err


def test_progress_off_a_terminal_is_a_line_per_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress() as advance:
        for done in range(0, 101, 5):
            advance(done, 100)
    lines = capsys.readouterr().err.split("\n")[:-1]
    assert lines == [f"{done} of 100 images" for done in range(10, 101, 10)]
