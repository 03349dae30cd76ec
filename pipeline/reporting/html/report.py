"""Writes report.html from the files of a sweep.

`page` puts the sections together (`champion`, `trials`, `sections`); `figures` and `pictures` make the plots
and images, `savings` the numbers on early stopping, `markup` the HTML.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config import SweepPaths
from pipeline.reporting.history import read_history
from pipeline.reporting.html.page import render_page
from pipeline.storage.files import write_text


def write_report(root: Path) -> Path:
    """Write `root`/report.html from whatever the sweep in `root` has written so far.

    Returns:
        The path of the page: one file, no network, 5 MB of it plotly.js.

    Raises:
        SweepError: `root` is not a sweep's folder.
    """
    paths = SweepPaths(root)
    write_text(paths.report, render_page(read_history(root)))
    return paths.report
