"""Rows of text at a terminal's width, and progress off a terminal."""

from __future__ import annotations

import pytest

from pipeline.cli import terminal
from pipeline.cli.terminal import fold_rows

ROWS = [("trial", "fid", "params"), ("3", "23.98", "lr_g=0.000909 loss=nonsaturating"), ("10", "7", "")]


def test_rows_are_whole_where_they_fit_and_off_a_terminal() -> None:
    whole = [["trial  fid    params"], ["3      23.98  lr_g=0.000909 loss=nonsaturating"], ["10     7"]]
    assert fold_rows(ROWS, None) == whole
    assert fold_rows(ROWS, 46) == whole
    assert fold_rows([], 80) == []


def test_a_wide_last_cell_is_folded_in_its_column_between_words() -> None:
    lines = fold_rows(
        [("", "notes", "a " * 20 + "/a/path/that/is/longer/than/the/column/and/stays/whole")], 40
    )[0]
    assert lines[0] == "  notes  " + " ".join("a" * 16)
    assert {line[:9] for line in lines[1:]} == {" " * 9}
    assert lines[-1].endswith("and/stays/whole")


def test_a_narrow_last_column_goes_below_its_row() -> None:
    assert fold_rows(ROWS, 30) == [
        ["trial  fid"],
        ["3      23.98", "    lr_g=0.000909", "    loss=nonsaturating"],
        ["10     7"],
    ]


def test_wide_characters_count_twice() -> None:
    assert fold_rows([("\u732b", "x"), ("cat", "y")], 80) == [["\u732b   x"], ["cat  y"]]


def test_progress_off_a_terminal_is_a_line_per_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress() as advance:
        for done in range(0, 101, 5):
            advance(done, 100)
    lines = capsys.readouterr().err.split("\n")[:-1]
    assert lines == [f"{done} of 100 images" for done in range(10, 101, 10)]
