"""What one does with a MODEL: open, sample, walk, export, measure, register it.

A MODEL is `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or the folder or address of a sweep (its best).
Owns: that address, and what each command makes of it. Refuses: how a generator is stored, and file formats.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import SweepConfig, SweepPaths
from pipeline.data import external_samples
from pipeline.data.dataset import load_dataset
from pipeline.errors import CheckpointError, ConfigError, DataError, RegistryError, SweepError
from pipeline.metrics import evaluation, extractors, frechet
from pipeline.serving import dataset_export, interpolation
from pipeline.storage.files import replacing
from pipeline.storage.readonly_copy import fetched_sweep
from pipeline.storage.summary_file import read_summary
from pipeline.tracking.registry.export import export_generator
from pipeline.tracking.registry.load import LoadedGenerator, fetched_model, from_packed
from pipeline.tracking.registry.pack import finite, pack_generator, pick_device
from pipeline.tracking.registry.promote import CHAMPION, Registered, register_version, set_alias
from pipeline.tracking.registry.registered_model import Images
from pipeline.tracking.tracking_uri import default_uri
from pipeline.training.checkpoint import best_generator, grid_image

MOST = 1_000_000
"""Images in one npz; a data set out of a GAN wants a folder."""
MOST_IN_GRID = 10_000
N_MEASURED = 5000
"""Samples of a measurement, unless told otherwise."""

Advance = Callable[[int, int], None]


def default_tracking_uri(uri: str) -> str:
    """The tracking store of a command that takes a MODEL: as given, else the one below ./runs."""
    return uri or default_uri(Path("runs"))


def is_sweep(model: str) -> bool:
    """Whether a MODEL is a folder rather than an address of the registry."""
    return not model.startswith("models:")


def open_model(model: str, tracking_uri: str = "", device: str = "cpu") -> LoadedGenerator:
    """Load the generator behind a MODEL onto `device`.

    Raises:
        RegistryError, SweepError: there is none.
    """
    with unpacked(model, tracking_uri) as folder:
        return from_packed(folder, device)


def load_generator(model: str, tracking_uri: str = "", *, device: str = "auto") -> LoadedGenerator:
    """Load the generator behind a MODEL: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a sweep's folder.

        images, labels = pipeline.load_generator("models:/mnist5k@champion").sample(16, seed=0, label=3)

    Args:
        tracking_uri: MLflow store or server; else MLFLOW_TRACKING_URI, else the one below ./runs.
        device: `cpu`, `cuda` or `auto` (cpu: the bytes of `gansweep sample`).

    Raises:
        RegistryError, SweepError: there is no such model, its files were altered, or there is no GPU.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    return open_model(model, uri, pick_device(device))


@contextlib.contextmanager
def unpacked(model: str, tracking_uri: str = "") -> Iterator[Path]:
    """The packed folder of a MODEL, for as long as it is held."""
    if not is_sweep(model):
        with fetched_model(model, tracking_uri=default_tracking_uri(tracking_uri)) as folder:
            yield folder
        return
    with fetched_sweep(model) as root, tempfile.TemporaryDirectory() as spare:
        yield packed(root, Path(spare))


def packed(root: Path, spare: Path) -> Path:
    """The packed best generator of the sweep in `root`; of an unfinished one it is packed into `spare`."""
    paths = SweepPaths(root)
    if (paths.packed / "files.json").is_file():
        return paths.packed
    best = read_summary(paths.summary).get("best")
    if not best:
        raise SweepError(
            "a MODEL is models:/NAME@ALIAS, models:/NAME/VERSION or a sweep with a measured trial",
            seen=str(root),
            fix="name the folder that `run` made, or wait for its first fid",
        )
    try:
        generator, _ = best_generator(paths.trial(best["trial"]))
    except CheckpointError as error:
        raise SweepError(
            "the best trial has a whole checkpoint", seen=str(error), fix="run it again"
        ) from error
    return pack_generator(
        generator, spare, {**best, "withhold": ["the sweep has not measured its finalists"]}
    )


def sample(
    model: str,
    out: Path,
    *,
    n: int,
    seed: int = 0,
    label: int | None = None,
    truncation: float = 1.0,
    format: str = "",
    labels: str = "data",
    device: str = "auto",
    tracking_uri: str = "",
    advance: Advance = lambda done, n: None,
) -> str:
    """Write n images in the format that `out` and `format` name; returns what was written, in a line.

    FILE.png: a grid. FILE.npz: `images` uint8 (N,H,W,C), `labels` int64 (N,). A folder, or any `format` of
    `pipeline.serving.dataset_export`: a data set, streamed and resumable, drawn on a GPU where there is one (the bytes of
    two devices differ in their last bit). All atomically.

    Raises:
        ConfigError: another suffix, or too many images. RegistryError: see `registry.LoadedGenerator.sample`.
    """
    whole = not format and not out.is_dir() and out.suffix != ""
    _check_out(out, n, whole)
    with unpacked(model, tracking_uri) as folder:
        on = pick_device(device, auto="cpu" if whole else "cuda")
        generator = from_packed(folder, on)
        identity = hashlib.sha256((folder / "files.json").read_bytes()).hexdigest()[:16]
    if not whole:
        names = tuple(generator.facts.get("class_names") or ()) if generator.classes else ()
        request = dataset_export.ExportRequest(
            n, format or "folder", identity, model, seed, label, labels, truncation, on, names
        )  # fmt: skip
        new = dataset_export.export_dataset(generator, out, request, advance)
        return f"{n} images ({new} new): {out}"
    portions = generator.stream(n, seed, label, 512, truncation, balanced=labels == "balanced")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        dataset_export.write_npz(out, portions, n, (generator.size, generator.size, generator.channels))
    else:
        images = np.concatenate([part for part, _ in portions])
        with replacing(out) as temporary:
            grid_image(images, columns=math.ceil(math.sqrt(n))).save(temporary, format="PNG")
    return f"{n} images: {out}"


def _check_out(out: Path, n: int, whole: bool) -> None:
    if whole and out.suffix not in (".png", ".npz"):
        raise ConfigError(
            "--out ends in .png or .npz, or is a folder",
            seen=out.name,
            fix=f"write --out {out.stem or 'samples'}.png, or --format folder",
        )
    most = (MOST_IN_GRID if out.suffix == ".png" else MOST) if whole else dataset_export.MOST
    if not 1 <= n <= most:
        fix = "write a folder: --out DIR --format npz" if n > most else "write -n 64"
        raise ConfigError(f"-n lies in [1, {most}]", seen=n, fix=fix)


def interpolate(
    model: str,
    out: Path,
    *,
    seeds: Sequence[int] = (),
    labels: Sequence[int] = (),
    frames: int = 0,
    fps: int = 20,
    truncation: float = 1.0,
    loop: bool = False,
    tracking_uri: str = "",
) -> Path:
    """Write a walk through latent space: over the first image of each seed, over labels, or both at once.

    Frames that fall on a seed are the bytes that `sample` draws. frames: 0 = 30 a leg (8 in a PNG strip).
    loop: back to where it began.

    Raises:
        ConfigError: another suffix, no way to go. RegistryError: seeds or labels that cannot be.
    """
    seeds = tuple(seeds) or ((0,) if len(labels) > 1 else (0, 1, 2, 3))
    keys = max(len(seeds), len(labels))
    if keys < 2 or len({len(seeds), len(labels)} - {0, 1}) > 1:
        raise ConfigError(
            "a walk leads over two seeds or labels at least; of both as many, or one of either",
            seen=f"{len(seeds)} seeds, {len(labels)} labels",
            fix="write --seeds 0,1,2",
        )
    frames = frames or (8 if out.suffix == ".png" else 30) * (keys if loop else keys - 1)
    interpolation.check_walk(out, frames, fps)
    generator = open_model(model, tracking_uri)
    return interpolation.write_walk(_walk(generator, seeds, labels, frames, truncation, loop), out, fps=fps)


def _walk(
    generator: LoadedGenerator,
    seeds: Sequence[int],
    labels: Sequence[int],
    frames: int,
    truncation: float,
    loop: bool,
) -> Images:
    starts = [generator.latents(1, seed, None, truncation) for seed in seeds]
    for label in labels:
        generator.latents(1, seeds[0], label)  # an impossible one is told
    z = interpolation.latent_path(np.concatenate([z for z, _ in starts]), frames, loop=loop)
    if len(labels) > 1:
        keys = generator.label_vectors()[list(labels)]
        return generator.render(z, mixed=interpolation.latent_path(keys, frames, loop=loop))
    own = starts[0][1]
    if own is None:
        return generator.render(z)
    return generator.render(z, np.full(frames, labels[0] if labels else own[0], np.int64))


def export(model: str, out: Path | None, *, format: str, tracking_uri: str = "") -> tuple[Path, str]:
    """Write a MODEL as one file for others; returns where, and what is in it.

    Raises:
        RegistryError: an unknown format; ONNX that is not installed or differs from torch.
    """
    name = re.sub(r"\W+", "-", model.removeprefix("models:/")).strip("-") or "generator"
    out = out or Path(f"{name}.{format}")
    with unpacked(model, tracking_uri) as folder:
        return out, export_generator(folder, out, format)


def evaluate(
    model: str,
    *,
    data: str,
    n: int = 0,
    seed: int,
    image_size: int = 0,
    extractor: str = "auto",
    weights: str = "",
    tracking_uri: str = "",
) -> dict[str, Any]:
    """Measure a MODEL against `data` with n samples (0 = 5,000, or all): `evaluation.Measurement`, plain.

    MODEL may be samples:PATH too: what another tool drew, a folder of PNGs or an npz.

    Raises:
        UserError: the model, the data or the extractor cannot be had, or do not fit each other.
    """
    if model.startswith(external_samples.PREFIX):
        dataset = load_dataset(data, image_size=image_size)
        images, labels = external_samples.read_samples(
            Path(model.removeprefix(external_samples.PREFIX)).expanduser(), dataset.size, dataset.channels
        )
        source = evaluation.from_pool(images, labels if dataset.labelled else None, seed)
        n, repeats = _of_pool(n, len(images))
    else:
        generator = open_model(model, tracking_uri)
        dataset = load_dataset(data, image_size=image_size or generator.size)
        source, repeats = evaluation.from_arrays(generator.sample), evaluation.REPEATS
    chosen = extractors.build_extractor(extractor, dataset, weights=weights)
    evaluator = frechet.build_evaluator(dataset, chosen, n or N_MEASURED)
    measured = evaluation.measure_generator(
        source, dataset, evaluator, n=n or N_MEASURED, seed=seed, repeats=repeats
    )
    plain: dict[str, Any] = finite(measured.to_dict())
    return plain


def _of_pool(n: int, there: int) -> tuple[int, int]:
    """How many of the samples that are there go into one batch (0 = all of them), and how many batches."""
    if n > there:
        raise DataError("-n is at most as many samples as there are", seen=n, fix=f"write -n {there}")
    return n or there, min(evaluation.REPEATS, there // (n or there))


def register(
    model: str,
    *,
    name: str = "",
    alias: str = "auto",
    promote: str = CHAMPION,
    tracking_uri: str = "",
) -> Registered:
    """Register the best of a sweep's folder, or give a registered version an alias.

    Raises:
        UserError: see `registry.register`; or the images of the sweep, which its fid is verified with, are
            not to be had.
    """
    uri = default_tracking_uri(tracking_uri)
    if not is_sweep(model):
        if alias == "auto":
            raise RegistryError(
                "a version gets an alias that is named", seen="no --alias", fix="add --alias champion"
            )
        return set_alias(model, alias, tracking_uri=uri)
    with fetched_sweep(model) as root, tempfile.TemporaryDirectory() as folder:
        where = packed(root, Path(folder))
        facts = from_packed(where).facts
        return register_version(
            where,
            tracking_uri=uri,
            name=name or read_summary(SweepPaths(root).summary)["name"],
            facts=facts,
            alias=alias,
            promote=promote,
            evaluator=None if promote == "never" else _evaluator_of(root, facts),
        )


def _evaluator_of(root: Path, facts: dict[str, Any]) -> frechet.Evaluator | None:
    """What the fid in `facts` was measured with; None where it is not one of the finalists'."""
    if not facts.get("evaluator") or facts.get("withhold"):
        return None
    stored = tomllib.loads(SweepPaths(root).config.read_text(encoding="utf-8"))
    config = SweepConfig.from_dict(stored["sweep"])
    if extractors.is_custom_extractor(config.extractor):
        return None  # looking at a folder runs no code of its own
    dataset = load_dataset(config.data, image_size=config.image_size)
    extractor = extractors.build_extractor(config.extractor, dataset, weights=config.extractor_weights)
    return frechet.build_evaluator(dataset, extractor, int(facts["n"]))
