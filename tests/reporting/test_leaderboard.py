"""The leaderboard as rows of text."""

from __future__ import annotations

from typing import Any

from sweep_folders import summary_of

from pipeline.reporting.leaderboard import text_table


def row(trial: int, fid: float | None, **changes: Any) -> dict[str, Any]:
    """A row of summary.json's leaderboard; without a fid, its other numbers are missing too."""
    number = None if fid is None else 1.0
    return {
        "trial": trial, "state": "complete", "fid": fid, "balance": number, "auc": number, "kimg": 15,
        "last_kimg": 15, "stability": number, "verdict": "healthy", "cause": "",
        "params": {"lr_g": 1e-4 * (trial + 1), "loss": "hinge", "width_g": 8 * (trial + 1)}, **changes,
    }  # fmt: skip


def test_rows_are_sorted_cut_and_formatted() -> None:
    rows = [row(3, None), row(1, 100.0), row(2, 12.5, balance=0.2, stability=1.0), row(0, 40.0)]
    table = text_table(summary_of(leaderboard=rows), limit=3)
    assert table[0] == ["trial", "state", "fid", "balance", "kimg", "stability", "verdict", "params"]
    assert table[1] == ["2", "complete", "12.5", "0.20", "15", "1.00", "healthy", "lr_g=0.0003 width_g=24"]
    assert [texts[0] for texts in table[1:]] == ["2", "0", "1"]


def test_unknown_values_are_dashes_and_an_empty_summary_has_no_rows() -> None:
    assert len(text_table(summary_of())) == 1
    assert text_table(summary_of(leaderboard=[row(3, None, kimg=None)]))[1][2:6] == ["-"] * 4
