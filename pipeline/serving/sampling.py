"""Samples of a MODEL as a grid, an npz file or a data set."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.data.pictures import image_sheet, save_drawing, to_picture
from pipeline.errors import ConfigError
from pipeline.serving import dataset_export
from pipeline.serving.models import open_packed
from pipeline.serving.sample_options import MAX_IMAGES, SampleOptions
from pipeline.storage.files import replacing
from pipeline.tracking.registry.class_names import describe_class
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.pack import pick_device
from pipeline.tracking.registry.registered_model import sha256_of

log = logging.getLogger(__name__)

MAX_IN_FILE = {".png": 10_000, ".npz": 1_000_000}
"""Most images in one file; larger data sets are written as a folder."""


def sample(
    model: str,
    out: Path,
    options: SampleOptions,
    *,
    tracking_uri: str = "",
    advance: Callable[[int, int], None] = lambda done, n: None,
) -> str:
    """Write images in the form given by `out` and `options.format`; returns a line on what was written.

    FILE.png: a grid. FILE.npz: `images` uint8 (N,H,W,C), `labels` int64 (N,). A folder, or any format of
    `pipeline.serving.dataset_export`: a data set, streamed and resumable, sampled on a GPU where there is
    one (the bytes of two devices differ in the last bit). Files are written atomically. A log line tells the
    number and the name of the class that `options.label` means.

    Raises:
        ConfigError: another suffix, or too many images. RegistryError: as `LoadedGenerator.sample`.
    """
    single_file = not options.format and not out.is_dir() and out.suffix != ""
    if single_file and out.suffix not in MAX_IN_FILE:
        raise ConfigError(
            "{seen} has no known format",
            rule="--out ends in .png or .npz, or is a folder",
            seen=out.name,
            fix=f"write --out {out.stem or 'samples'}.png, or --format folder",
        )
    options.check_count(MAX_IN_FILE[out.suffix] if single_file else MAX_IMAGES)
    with open_packed(model, tracking_uri) as folder:
        device = pick_device(options.device, auto="cpu" if single_file else "cuda")
        generator = LoadedGenerator(folder, device)
        identity = sha256_of(folder / "files.json")[:16]
    if options.label is not None:
        number = generator.class_number(options.label)
        options = replace(options, label=number)
        log.info(describe_class(number, generator.class_names))
    if single_file:
        _write_file(generator, out, options)
        return f"{options.n} images: {out}"
    request = dataset_export.ExportRequest(
        **{**vars(options), "format": options.format or "folder", "device": device},
        identity=identity,
        model=model,
        class_names=generator.metadata.class_names if generator.classes else (),
    )
    new = dataset_export.export_dataset(generator, out, request, advance)
    return f"{options.n} images ({new} new): {out}"


def _write_file(generator: LoadedGenerator, out: Path, options: SampleOptions) -> None:
    chunks = generator.stream(
        options.n, options.seed, options.label, 512, options.truncation, balanced=options.labels == "balanced"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        shape = (options.n, generator.size, generator.size, generator.channels)
        dataset_export.write_npz(out, chunks, shape)
        return
    images = np.concatenate([chunk for chunk, _ in chunks])
    with replacing(out) as temporary:
        if options.n == 1:  # an image like those of a data set
            to_picture(images[0]).save(temporary, format="PNG")
        else:
            save_drawing(image_sheet(images, math.ceil(math.sqrt(options.n))), temporary)
