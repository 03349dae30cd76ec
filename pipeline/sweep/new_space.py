"""A commented space file for images: the space that `run` would choose, to be read and changed."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path

from pipeline.config import SweepConfig
from pipeline.data.dataset import Dataset
from pipeline.search.space.builtin import builtin_spaces, load_builtin
from pipeline.search.space.writer import commented_space, read_reasons
from pipeline.storage.addresses import absolute_source
from pipeline.sweep.data_report import DataReport, report_data, report_rows, run_command
from pipeline.sweep.space_choice import name_for_data

_WIDTH = 108


def default_file(source: str) -> Path:
    """The file of the images of `source` in the current folder: `photos.toml` for `folder:holiday/photos`."""
    return Path(f"{name_for_data(absolute_source(source))}.toml")


def new_space(dataset: Dataset, config: SweepConfig, file: Path, device: str = "") -> tuple[DataReport, str]:
    """The report on the images, and the text of their space.

    config: how the images are read. file: for the commands in the text. device: what is to train, cpu or gpu;
    "" = what this machine has.

    Raises:
        SpaceError: the rules of the space contradict each other for these images.
    """
    report = report_data(dataset, config, device)
    text = builtin_spaces()[report.space].read_text(encoding="utf-8")
    reasons = read_reasons(text, load_builtin(report.space), report.facts)
    head = [
        "A search space, written by gansweep init for the images below. Edit it, check it, search it:",
        "",
        f"    {shlex.join(['gansweep', 'validate', str(file)])}",
        f"    {run_command(config, space=str(file))}",
        "",
        "A parameter stands in [fixed] (key = value) or in [search], as { float|int = [low, high] }, with",
        "log = true for a log scale, or as { choice = [...] }.",
        "",
        *_understood(report),
    ]
    return report, commented_space(report.resolved, reasons, head, labelled=report.facts.labelled)


def _understood(report: DataReport) -> list[str]:
    """What was understood of the images, a row of the report each."""
    lines: list[str] = []
    for heading, text in report_rows(report):
        lines += textwrap.wrap(text, _WIDTH, initial_indent=f"{heading:<9} ", subsequent_indent=" " * 10)
    return lines
