"""The commands for a finished generator: register, evaluate, sample, interpolate, export, serve."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import (
    Background,
    Classes,
    Fit,
    Frames,
    Model,
    Promote,
    Split,
    Tracking,
    images_config,
    parse_integers,
)
from pipeline.cli.terminal import out_console, print_rows, progress
from pipeline.reporting.log_lines import log_to_terminal
from pipeline.tables import EXTRACTORS

LONG_VALUE = 20
"""Values of more characters are listed by themselves, without a description."""


def register(
    model: Model,
    name: Annotated[str, typer.Option(help="Name in the registry (the sweep's).")] = "",
    alias: Annotated[
        str, typer.Option(help="champion, candidate, ... (champion if it is the best).")
    ] = "auto",
    promote: Promote = "champion",
    tracking_uri: Tracking = "",
) -> None:
    """Register the best of a sweep, or move an alias (roll back)."""
    from pipeline.serving import models

    done = models.register(model, name=name, alias=alias, promote=promote, tracking_uri=tracking_uri)
    out_console.print(f"{done.uri} (version {done.version}): {done.reason}", markup=False)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="models:/NAME@ALIAS, models:/NAME/VERSION, a sweep's folder; samples:PATH (PNGs or an npz)."
        ),
    ],
    data: Annotated[str, typer.Option(help="Images to measure against.")],
    n: Annotated[
        int | None, typer.Option("-n", min=16, help="Images per fid (5000; all that samples:PATH has).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 1,
    image_size: Annotated[int, typer.Option(help="Side of the data's images (the model's).")] = 0,
    classes: Classes = "",
    split: Split = "",
    fit: Fit = "crop",
    background: Background = "white",
    frames: Frames = "first",
    extractor: Annotated[
        str, typer.Option(help=f"{', '.join(['auto', *EXTRACTORS])}, or module:function in this folder.")
    ] = "auto",
    extractor_weights: Annotated[str, typer.Option(help="Local weights file of the extractor.")] = "",
    second_extractor: Annotated[
        str, typer.Option(help="What the samples are also measured in: auto, none, or as for --extractor.")
    ] = "auto",
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric of your own: module:function in this folder.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    tracking_uri: Tracking = "",
) -> None:
    """Measure a generator, or samples, against images.

    Prints fid with an interval, kid, precision, recall, memorisation and collapse.
    """
    from pipeline.metrics.measurement import METRIC_DESCRIPTIONS
    from pipeline.serving.evaluate import evaluate_as
    from pipeline.storage.typed_json import to_json
    from pipeline.tracking.registry.metadata import text_of

    log_to_terminal(quiet=json_)
    config = images_config(
        *(data, image_size, classes, split, fit, background, frames),
        extractor=extractor,
        extractor_weights=extractor_weights,
        second_extractor=second_extractor,
        metrics=",".join(metric or ()),
    )
    measured = evaluate_as(config, model, n=n or 0, seed=seed, tracking_uri=tracking_uri).to_dict()
    if json_:
        sys.stdout.write(json.dumps(to_json(measured), indent=1, allow_nan=False) + "\n")
        return
    _print_measured([(key, text_of(one), METRIC_DESCRIPTIONS.get(key, "")) for key, one in measured.items()])


def _print_measured(rows: list[tuple[str, str, str]]) -> None:
    """Rows of (name, value, meaning); those of long values come last, without their meaning."""
    short = [row for row in rows if len(row[1]) <= LONG_VALUE]
    print_rows(short)
    print_rows([row[:2] for row in rows if row not in short])


def sample(
    model: Model,
    out: Annotated[Path, typer.Option(help="FILE.png (a grid), FILE.npz, or DIR/ (a data set, resumable).")],
    n: Annotated[int, typer.Option("-n", help="How many images.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="The same model, n and seed give the same bytes.")] = 0,
    label: Annotated[
        str | None, typer.Option(help="Only this class, by number or name (conditional models).")
    ] = None,
    truncation: Annotated[float, typer.Option(help="Scale of z: below 1 is safer and less varied.")] = 1.0,
    format_: Annotated[str, typer.Option("--format", help="Of DIR: folder, npz or parquet (folder).")] = "",
    labels: Annotated[
        str, typer.Option(help="data: as frequent as in the training images; or balanced.")
    ] = "data",
    device: Annotated[str, typer.Option(help="auto (a GPU for DIR, else cpu), cpu or cuda.")] = "auto",
    tracking_uri: Tracking = "",
) -> None:
    """Draw images: a PNG grid, an npz file or a data set."""
    from pipeline.serving.sample_options import SampleOptions
    from pipeline.serving.sampling import sample as sample_model

    options = SampleOptions(
        n=n, seed=seed, label=label, labels=labels, truncation=truncation, format=format_, device=device
    )
    with progress() as advance:
        written = sample_model(model, out, options, tracking_uri=tracking_uri, advance=advance)
    out_console.print(written, markup=False)


def interpolate(
    model: Model,
    out: Annotated[Path, typer.Option(help="FILE.png (a strip), FILE.gif or FILE.mp4 (by ffmpeg).")],
    seeds: Annotated[str, typer.Option(help="Walk over the first image of each (0,1,2,3).")] = "",
    labels: Annotated[str, typer.Option(help="Walk over these classes (0,cat,dog), or stay in one.")] = "",
    frames: Annotated[int, typer.Option(help="Frames in all (30 between two, 8 in a strip).")] = 0,
    fps: Annotated[int, typer.Option(help="Frames per second.")] = 20,
    truncation: Annotated[float, typer.Option(help="Scale of z.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Walk back to the beginning.")] = False,
    tracking_uri: Tracking = "",
) -> None:
    """Walk through latent space: a strip, GIF or video.

    Between seeds or labels, along great circles.
    """
    from pipeline.serving.interpolation import WalkOptions
    from pipeline.serving.interpolation import interpolate as interpolate_model
    from pipeline.tracking.registry.class_names import split_classes

    walk = WalkOptions(
        seeds=parse_integers("--seeds", seeds),
        labels=split_classes(labels),
        frames=frames,
        fps=fps,
        truncation=truncation,
        loop=loop,
    )
    written = interpolate_model(model, out, walk, tracking_uri=tracking_uri)
    out_console.print(f"written: {written}", markup=False)


def export(
    model: Model,
    format_: Annotated[str, typer.Option("--format", help="safetensors, pt2 or onnx.")] = "safetensors",
    out: Annotated[Path | None, typer.Option(help="File to write (named after the model).")] = None,
    tracking_uri: Tracking = "",
) -> None:
    """Write a generator as one file for other programs.

    ONNX is compared with torch first.
    """
    from pipeline.serving import models

    written, note = models.export(model, out, format=format_, tracking_uri=tracking_uri)
    out_console.print(f"{written}: {note}", markup=False)


def serve(
    model: Model,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback (0: any free).")] = 8000,
    tracking_uri: Tracking = "",
) -> None:
    """Open a page to sample, walk and pick a class."""
    from pipeline.serving import models
    from pipeline.serving.page import serve_page

    generator = models.load_generator(model, tracking_uri=tracking_uri)
    serve_page(generator, model, port, on_ready=lambda url: out_console.print(url, markup=False))
