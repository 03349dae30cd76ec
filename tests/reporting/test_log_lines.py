"""What is printed on stderr for log lines."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from pipeline.reporting import log_lines

log = logging.getLogger("pipeline.tests")

LONG = "word " * 100


@pytest.fixture(autouse=True)
def _no_handlers_yet() -> None:
    logging.getLogger("pipeline").handlers.clear()


def test_info_is_a_plain_line_and_a_warning_has_a_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    log_lines.log_to_terminal()
    log.info("images: digits")
    log.warning("the disk is full")
    log.debug("a detail")
    out, err = capsys.readouterr()
    assert err.splitlines() == ["images: digits", "warning: the disk is full"]
    assert out == ""


def test_lines_are_not_folded_and_brackets_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    log_lines.log_to_terminal()
    log.info(LONG)
    log.warning("%s", LONG)
    log.info("shape [bold] [3, 4]")
    assert capsys.readouterr().err.splitlines() == [LONG, f"warning: {LONG}", "shape [bold] [3, 4]"]


def test_quiet_leaves_out_info_and_keeps_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    log_lines.log_to_terminal(quiet=True)
    log.info("images: digits")
    log.warning("the disk is full")
    log.error("worse")
    assert capsys.readouterr().err.splitlines() == ["warning: the disk is full", "warning: worse"]


def test_a_second_call_changes_the_level_and_prints_no_line_twice(capsys: pytest.CaptureFixture[str]) -> None:
    log_lines.log_to_terminal(quiet=True)
    log_lines.log_to_terminal()
    log.info("once")
    assert capsys.readouterr().err.splitlines() == ["once"]


def test_info_is_dim_on_a_terminal_and_a_warning_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    colours = Console(file=screen, force_terminal=True, color_system="standard", soft_wrap=True, width=40)
    monkeypatch.setattr(log_lines, "err_console", colours)
    log_lines.log_to_terminal()
    log.info("quiet words")
    log.warning("loud words")
    dim, warning = screen.getvalue().splitlines()
    assert dim == "\x1b[2mquiet words\x1b[0m"
    assert warning == "warning: loud words"
