"""The command `gansweep init`: a commented space for the user's images."""

from __future__ import annotations

import os
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
from pipeline.cli.terminal import out_console
from pipeline.errors import ConfigError, nearest
from pipeline.reporting.log_lines import log_to_terminal

DEVICES = ("auto", "cpu", "gpu")


def init(
    source: Source,
    out: Annotated[
        Path | None, typer.Option(help="The new file (named after the images).", metavar="FILE.toml")
    ] = None,
    device: Annotated[
        str, typer.Option(help="What is to train: auto (this machine's), cpu or gpu.", metavar="WHAT")
    ] = "auto",
    image_size: ImageSize = 0,
    classes: Classes = "",
    split: Split = "",
    fit: Fit = "crop",
    background: Background = "white",
    frames: Frames = "first",
) -> None:
    """Write a commented search space for your images.

    It is the space that `gansweep run --data SOURCE` would search, resolved for these images: each parameter
    with its meaning, its bounds and the reason of its range. A file that exists is never replaced.
    """
    from pipeline.metrics.loading import load_images
    from pipeline.storage.files import write_text
    from pipeline.sweep.new_space import default_file, new_space

    log_to_terminal()
    if device not in DEVICES:
        raise ConfigError("--device {seen} is unknown", seen=device, fix=nearest(device, DEVICES))
    file = out or default_file(source)
    _check_new(file)
    config = images_config(source, image_size, classes, split, fit, background, frames)
    use_source_code(source)
    report, text = new_space(load_images(config), config, file, "" if device == "auto" else device)
    write_text(file, text)
    space = report.resolved
    counts = f"{len(space.search)} searched, {len(space.fixed)} fixed, {len(space.enqueue)} enqueued"
    out_console.print(f"written: {file} ({counts})", markup=False)
    command = next(line for line in text.splitlines() if " gansweep run " in line)
    out_console.print(f"\n{command.lstrip('# ')}", markup=False)


def _check_new(file: Path) -> None:
    """ConfigError where the file exists or cannot be written."""
    if file.suffix != ".toml":
        raise ConfigError(
            "--out {seen} is no TOML file", seen=str(file), fix=f"write --out {file.with_suffix('.toml')}"
        )
    if os.path.lexists(file):
        other = file.with_stem(f"{file.stem}-2")
        raise ConfigError(
            "{seen} exists",
            rule="init writes a new file",
            seen=str(file),
            fix=f"remove it, or write --out {other}",
        )
    if not os.access(file.absolute().parent, os.W_OK):
        raise ConfigError(
            "there is no writable folder for --out {seen}",
            seen=str(file),
            fix="make it, or write --out FILE.toml in another",
        )
