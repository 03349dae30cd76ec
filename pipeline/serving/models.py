"""What the commands do with a MODEL: open, sample, interpolate, export, evaluate and register it.

A MODEL is `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or the folder or URL of a sweep (its best generator).
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
from pipeline.tracking.registry.pack import json_ready, pack_generator, pick_device
from pipeline.tracking.registry.promote import CHAMPION, RegisteredVersion, register_version, set_alias
from pipeline.tracking.registry.registered_model import Images
from pipeline.tracking.tracking_uri import default_uri
from pipeline.training.checkpoint import best_generator, grid_image

MAX_IMAGES = 1_000_000  # in one npz; larger data sets are written as a folder
MAX_GRID_IMAGES = 10_000  # in one PNG grid
DEFAULT_SAMPLES = 5000  # of a measurement

Advance = Callable[[int, int], None]


def default_tracking_uri(uri: str) -> str:
    """The tracking store of a command that takes a MODEL: as given, else the one below ./runs."""
    return uri or default_uri(Path("runs"))


def is_sweep(model: str) -> bool:
    """Whether a MODEL is a sweep rather than an address of the registry."""
    return not model.startswith("models:")


def open_model(model: str, tracking_uri: str = "", device: str = "cpu") -> LoadedGenerator:
    """Load the generator behind a MODEL onto `device`.

    Raises:
        RegistryError, SweepError: there is no such model, or its files were altered.
    """
    with open_packed(model, tracking_uri) as folder:
        return from_packed(folder, device)


def load_generator(model: str, tracking_uri: str = "", *, device: str = "auto") -> LoadedGenerator:
    """Load the generator behind a MODEL: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a sweep's folder.

        images, labels = pipeline.load_generator("models:/mnist5k@champion").sample(16, seed=0, label=3)

    Args:
        tracking_uri: MLflow store or server; else MLFLOW_TRACKING_URI, else the one below ./runs.
        device: `cpu`, `cuda` or `auto` (= cpu, which gives the bytes of `gansweep sample`).

    Raises:
        RegistryError, SweepError: there is no such model, its files were altered, or there is no GPU.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    return open_model(model, uri, pick_device(device))


@contextlib.contextmanager
def open_packed(model: str, tracking_uri: str = "") -> Iterator[Path]:
    """Context manager: the packed folder of a MODEL, perhaps a temporary copy. Raises as `open_model`."""
    if not is_sweep(model):
        with fetched_model(model, tracking_uri=default_tracking_uri(tracking_uri)) as folder:
            yield folder
        return
    with fetched_sweep(model) as root, tempfile.TemporaryDirectory() as scratch_dir:
        yield pack_best(root, Path(scratch_dir))


def pack_best(root: Path, scratch_dir: Path) -> Path:
    """The packed champion of the sweep in `root`, or its best generator so far, packed into `scratch_dir`.

    Raises:
        SweepError: the sweep has no measured trial, or no valid checkpoint of it.
    """
    paths = SweepPaths(root)
    if (paths.packed / "files.json").is_file():
        return paths.packed
    best = read_summary(paths.summary).get("best")
    if not best:
        raise SweepError(
            "{seen} has no measured trial",
            rule="a MODEL is models:/NAME@ALIAS, models:/NAME/VERSION or a sweep with one",
            seen=str(root),
            fix="name the folder that `run` made, or wait for its first fid",
        )
    try:
        generator, _ = best_generator(paths.trial(best["trial"]))
    except CheckpointError as error:
        problem = "the best trial's checkpoint is missing or damaged"
        raise SweepError(problem, seen=str(error), fix="run it again") from error
    facts = {**best, "withhold": ["the sweep has not measured its finalists"]}
    return pack_generator(generator, scratch_dir, facts)


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
    """Write n images in the format given by `out` and `format`; returns a line on what was written.

    FILE.png: a grid. FILE.npz: `images` uint8 (N,H,W,C), `labels` int64 (N,). A folder, or any `format` of
    `pipeline.serving.dataset_export`: a data set, streamed and resumable, sampled on a GPU where there is
    one (the bytes of two devices differ in the last bit). Files are written atomically.

    Raises:
        ConfigError: another suffix, or too many images. RegistryError: as `LoadedGenerator.sample`.
    """
    single_file = not format and not out.is_dir() and out.suffix != ""
    _check_out(out, n, single_file)
    with open_packed(model, tracking_uri) as folder:
        chosen = pick_device(device, auto="cpu" if single_file else "cuda")
        generator = from_packed(folder, chosen)
        identity = hashlib.sha256((folder / "files.json").read_bytes()).hexdigest()[:16]
    if not single_file:
        names = tuple(generator.facts.get("class_names") or ()) if generator.classes else ()
        request = dataset_export.ExportRequest(
            n, format or "folder", identity, model, seed, label, labels, truncation, chosen, names
        )  # fmt: skip
        new = dataset_export.export_dataset(generator, out, request, advance)
        return f"{n} images ({new} new): {out}"
    chunks = generator.stream(n, seed, label, 512, truncation, balanced=labels == "balanced")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npz":
        dataset_export.write_npz(out, chunks, n, (generator.size, generator.size, generator.channels))
    else:
        images = np.concatenate([chunk for chunk, _ in chunks])
        with replacing(out) as temporary:
            grid_image(images, columns=math.ceil(math.sqrt(n))).save(temporary, format="PNG")
    return f"{n} images: {out}"


def _check_out(out: Path, n: int, single_file: bool) -> None:
    if single_file and out.suffix not in (".png", ".npz"):
        raise ConfigError(
            "{seen} has no known format",
            rule="--out ends in .png or .npz, or is a folder",
            seen=out.name,
            fix=f"write --out {out.stem or 'samples'}.png, or --format folder",
        )
    most = (
        (MAX_GRID_IMAGES if out.suffix == ".png" else MAX_IMAGES)
        if single_file
        else dataset_export.MAX_IMAGES
    )
    if not 1 <= n <= most:
        fix = "write a folder: --out DIR --format npz" if n > most else "write -n 64"
        raise ConfigError("-n {seen} is out of range", rule=f"-n lies in [1, {most}]", seen=n, fix=fix)


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

    Frames at a seed have the bytes that `sample` gives.

    Args:
        frames: in all; 0 = 30 a segment (8 in a PNG strip).
        loop: whether to return to the first seed.

    Raises:
        ConfigError: another suffix, or fewer than two points. RegistryError: a seed or label out of range.
    """
    seeds = tuple(seeds) or ((0,) if len(labels) > 1 else (0, 1, 2, 3))
    keys = max(len(seeds), len(labels))
    if keys < 2 or len({len(seeds), len(labels)} - {0, 1}) > 1:
        raise ConfigError(
            "{seen} make no walk",
            rule="at least two seeds or labels; if both, as many of each, or one of either",
            seen=f"{len(seeds)} seeds and {len(labels)} labels",
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
        generator.latents(1, seeds[0], label)  # raises for one out of range
    z = interpolation.latent_path(np.concatenate([z for z, _ in starts]), frames, loop=loop)
    if len(labels) > 1:
        keys = generator.label_embeddings()[list(labels)]
        return generator.render(z, embeddings=interpolation.latent_path(keys, frames, loop=loop))
    sampled = starts[0][1]
    if sampled is None:
        return generator.render(z)
    return generator.render(z, np.full(frames, labels[0] if labels else sampled[0], np.int64))


def export(model: str, out: Path | None, *, format: str, tracking_uri: str = "") -> tuple[Path, str]:
    """Write a MODEL as one file; returns its path and a line that describes its content.

    Raises:
        RegistryError: an unknown format; ONNX is not installed, or differs from torch.
    """
    name = re.sub(r"\W+", "-", model.removeprefix("models:/")).strip("-") or "generator"
    out = out or Path(f"{name}.{format}")
    with open_packed(model, tracking_uri) as folder:
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
    """Measure a MODEL against `data` with n samples; returns an `evaluation.Measurement` as JSON values.

    Args:
        model: may be samples:PATH too, the samples of another tool: a folder of PNGs or an npz.
        n: 0 = `DEFAULT_SAMPLES`, or all samples of PATH.

    Raises:
        UserError: the model, the data or the extractor cannot be loaded, or do not fit each other.
    """
    if model.startswith(external_samples.PREFIX):
        dataset = load_dataset(data, image_size=image_size)
        images, labels = external_samples.read_samples(
            Path(model.removeprefix(external_samples.PREFIX)).expanduser(), dataset.size, dataset.channels
        )
        source = evaluation.from_pool(images, labels if dataset.labelled else None, seed)
        n, repeats = _batches(n, len(images))
    else:
        generator = open_model(model, tracking_uri)
        dataset = load_dataset(data, image_size=image_size or generator.size)
        source, repeats = evaluation.from_arrays(generator.sample), evaluation.REPEATS
    chosen = extractors.build_extractor(extractor, dataset, weights=weights)
    evaluator = frechet.build_evaluator(dataset, chosen, n or DEFAULT_SAMPLES)
    measured = evaluation.measure_generator(
        source, dataset, evaluator, n=n or DEFAULT_SAMPLES, seed=seed, repeats=repeats
    )
    values: dict[str, Any] = json_ready(measured.to_dict())
    return values


def _batches(n: int, available: int) -> tuple[int, int]:
    """Samples in a batch (n, or all if n = 0), and number of batches."""
    if n > available:
        raise DataError(
            "-n {seen} is out of range",
            rule=f"there are {available} samples",
            seen=n,
            fix=f"write -n {available}",
        )
    return n or available, min(evaluation.REPEATS, available // (n or available))


def register(
    model: str,
    *,
    name: str = "",
    alias: str = "auto",
    promote: str = CHAMPION,
    tracking_uri: str = "",
) -> RegisteredVersion:
    """Register the best generator of a sweep, or give an alias to a registered version.

    Raises:
        UserError: as `register_version`; or the sweep's images, which verify its fid, are missing.
    """
    uri = default_tracking_uri(tracking_uri)
    if not is_sweep(model):
        if alias == "auto":
            raise RegistryError(
                "no --alias was given", rule="a registered version needs one", fix="add --alias champion"
            )
        return set_alias(model, alias, tracking_uri=uri)
    with fetched_sweep(model) as root, tempfile.TemporaryDirectory() as folder:
        packed = pack_best(root, Path(folder))
        facts = from_packed(packed).facts
        return register_version(
            packed,
            tracking_uri=uri,
            name=name or read_summary(SweepPaths(root).summary)["name"],
            facts=facts,
            alias=alias,
            promote=promote,
            evaluator=None if promote == "never" else _evaluator_for(root, facts),
        )


def _evaluator_for(root: Path, facts: dict[str, Any]) -> frechet.Evaluator | None:
    """The evaluator of the fid in `facts`; None if that was not measured among the finalists."""
    if not facts.get("evaluator") or facts.get("withhold"):
        return None
    stored = tomllib.loads(SweepPaths(root).config.read_text(encoding="utf-8"))
    config = SweepConfig.from_dict(stored["sweep"])
    if extractors.is_custom_extractor(config.extractor):
        return None  # a command on a sweep's folder runs no code that the folder names
    dataset = load_dataset(config.data, image_size=config.image_size)
    extractor = extractors.build_extractor(config.extractor, dataset, weights=config.extractor_weights)
    return frechet.build_evaluator(dataset, extractor, int(facts["n"]))
