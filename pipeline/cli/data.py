"""The command `gansweep data`: what is understood of images, before a sweep."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import (
    Background,
    Classes,
    Fit,
    Frames,
    ImageSize,
    Source,
    Split,
    images_config,
    use_source_code,
)
from pipeline.cli.terminal import out_console, print_rows
from pipeline.errors import ConfigError
from pipeline.reporting.log_lines import log_to_terminal


def data(
    source: Source,
    out: Annotated[Path | None, typer.Option(help="Also draw a contact sheet: FILE.png.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    image_size: ImageSize = 0,
    classes: Classes = "",
    split: Split = "",
    fit: Fit = "crop",
    background: Background = "white",
    frames: Frames = "first",
) -> None:
    """Check images: classes, copies, what is left out.

    Prints the command that starts a sweep on them, and prepares them for it.
    """
    from pipeline.data.contact_sheet import contact_sheet
    from pipeline.data.pictures import save_drawing
    from pipeline.metrics.loading import read_images
    from pipeline.storage.files import replacing
    from pipeline.sweep.data_report import report_data, report_rows

    log_to_terminal(quiet=json_)
    config = images_config(source, image_size, classes, split, fit, background, frames)
    use_source_code(source)
    if out is not None:
        _check_sheet(out)
    dataset = read_images(config)
    report = report_data(dataset, config)
    if out is not None:
        with replacing(out) as temporary:
            save_drawing(contact_sheet(dataset), temporary)
    if json_:
        sys.stdout.write(json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n")
        return
    print_rows(report_rows(report))
    out_console.print(f"\n{report.command}", markup=False, soft_wrap=True)  # on one line, to be copied
    if out is not None:
        out_console.print(f"\ncontact sheet: {out}", markup=False, soft_wrap=True)


def _check_sheet(out: Path) -> None:
    if out.suffix.lower() != ".png":
        raise ConfigError(
            "--out {seen} is no PNG", rule="the sheet is one", seen=str(out), fix="write FILE.png"
        )
    if os.path.isdir(out):
        raise ConfigError(
            "--out {seen} is a folder", rule="it is a file", seen=str(out), fix="choose another"
        )
    folder = out.absolute().parent
    if not os.path.isdir(folder):
        raise ConfigError(
            "there is no folder for --out {seen}", seen=str(out), fix="make it, or choose another"
        )
    if not os.access(folder, os.W_OK):
        rule, fix = "its folder must be writable", "choose another"
        raise ConfigError("--out {seen} cannot be written", rule=rule, seen=str(out), fix=fix)
