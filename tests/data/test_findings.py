"""What is told of a source fits on lines, whatever files are called."""

from __future__ import annotations

import os

import pytest

from pipeline.data.findings import Findings, printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cats and dogs/猫 👩‍🔬.png", "cats and dogs/猫 👩‍🔬.png"),
        ("a\nb\t\x1b[31m", r"a\nb\t\x1b[31m"),
        ("a\u2028b", r"a\u2028b"),
        (os.fsdecode(b"\xff\xe9.png"), r"\xff\xe9.png"),
        ("\ud800", r"\ud800"),
    ],
)
def test_a_name_on_one_line(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert len(shown.encode().splitlines()) == 1


def test_notes_are_told_once_and_examples_are_few() -> None:
    findings = Findings()
    findings.note("two\nlines")
    findings.note("two\nlines")
    findings.leave_out("hidden", [f".{i}\r" for i in range(5)])
    assert findings.notes == [r"two\nlines"]
    assert (findings.left_out["hidden"].count, findings.left_out["hidden"].examples) == (
        5,
        [r".0\r", r".1\r", r".2\r"],
    )
