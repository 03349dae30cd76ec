"""What a sweep found, for reading: rows for the terminal, and report.html.

Owns: `build`, from a sweep's folder to its page (rows: the trials; figures: the plots; page: the
markup). Refuses: measuring anything.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipeline.config import SweepPaths
from pipeline.errors import SweepError
from pipeline.files import read_json, write_text
from pipeline.report.figures import draw_all, read_study
from pipeline.report.page import render
from pipeline.report.rows import all_records, leaderboard_rows, text_table

__all__ = ["build", "leaderboard_rows", "text_table"]


def build(root: Path) -> Path:
    """Write `root`/report.html from whatever the sweep in `root` has written so far.

    Returns:
        The path of the page: one file, no network, 5 MB of it plotly.js.

    Raises:
        SweepError: `root` is no sweep's folder.
    """
    paths = SweepPaths(root)
    summary = read_json(paths.summary)
    records = all_records(root)
    if not summary and not records:
        raise SweepError(
            "a sweep's folder holds summary.json", seen=str(root), fix="pass DIR/NAME of `gansweep run`"
        )
    with tempfile.TemporaryDirectory(prefix="gansweep-report-") as folder:
        study = read_study(paths.study, Path(folder))
        rows = leaderboard_rows(summary, records, study)
        figures = draw_all(rows, records, summary, study)
    write_text(paths.report, render(root, summary, rows, figures))
    return paths.report
