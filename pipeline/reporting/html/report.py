"""What a sweep found, for reading: rows for the terminal, and report.html.

Owns: `build`, from a sweep's folder to its page (rows: texts of the trials; figures, studies: the plots;
pictures; savings; markup, champion, trials, sections, page: the markup). Refuses: measuring anything.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config import SweepPaths
from pipeline.reporting import history
from pipeline.reporting.html.page import render_page
from pipeline.storage.files import write_text


def write_report(root: Path) -> Path:
    """Write `root`/report.html from whatever the sweep in `root` has written so far.

    Returns:
        The path of the page: one file, no network, 5 MB of it plotly.js.

    Raises:
        SweepError: `root` is no sweep's folder.
    """
    paths = SweepPaths(root)
    write_text(paths.report, render_page(history.read_history(root)))
    return paths.report
