"""What one does with a MODEL: open, sample, measure, register it.

A MODEL is `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or the folder of a sweep (its best).
Owns: that address, and the files that samples are written to. Refuses: how a generator is stored.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import evaluation, features, fid, registry
from pipeline.checkpoint import best_generator, grid_image
from pipeline.config import SweepPaths
from pipeline.data import load
from pipeline.errors import CheckpointError, ConfigError, RegistryError, SweepError
from pipeline.files import read_json, replacing
from pipeline.tracker import default_uri

MOST = 1_000_000
"""Images in one file; a data set out of a GAN wants many files."""


def tracking(uri: str) -> str:
    """The tracking store of a command that takes a MODEL: as given, else the one below ./runs."""
    return uri or default_uri(Path("runs"))


def is_sweep(model: str) -> bool:
    """Whether a MODEL is a folder rather than an address of the registry."""
    return not model.startswith("models:")


def open_model(model: str, tracking_uri: str = "") -> registry.LoadedGenerator:
    """Load the generator behind a MODEL.

    Raises:
        RegistryError, SweepError: there is none.
    """
    if not is_sweep(model):
        return registry.load(model, tracking_uri=tracking(tracking_uri))
    with tempfile.TemporaryDirectory() as folder:
        return registry.from_packed(packed(Path(model), Path(folder)))


def packed(root: Path, spare: Path) -> Path:
    """The packed best generator of the sweep in `root`; of an unfinished one it is packed into `spare`."""
    paths = SweepPaths(root)
    if (paths.packed / "files.json").is_file():
        return paths.packed
    best = read_json(paths.summary).get("best")
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
    return registry.pack(generator, spare, {**best, "withhold": ["the sweep has not measured its finalists"]})


def sample(
    model: str,
    out: Path,
    *,
    n: int,
    seed: int,
    label: int | None,
    truncation: float,
    tracking_uri: str = "",
) -> Path:
    """Write n images as a PNG grid or an npz (`images` uint8 (N,H,W,C), `labels` int64 (N,)); atomically.

    Raises:
        ConfigError: another suffix, or too many images. RegistryError: see `registry.LoadedGenerator.sample`.
    """
    if out.suffix not in (".png", ".npz"):
        raise ConfigError(
            "--out ends in .png or .npz", seen=out.name, fix=f"write --out {out.stem or 'samples'}.png"
        )
    if not 1 <= n <= MOST:
        raise ConfigError(f"-n lies in [1, {MOST}]", seen=n, fix="write several files with different --seed")
    images, labels = open_model(model, tracking_uri).sample(n, seed, label, truncation)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary, temporary.open("wb") as file:
        if out.suffix == ".png":
            grid_image(images, columns=math.ceil(math.sqrt(n))).save(file, format="PNG")
        else:
            arrays = {"images": images} if labels is None else {"images": images, "labels": labels}
            np.savez(file, **arrays)
    return out


def evaluate(
    model: str,
    *,
    data: str,
    n: int,
    seed: int,
    extractor: str = "auto",
    weights: str = "",
    tracking_uri: str = "",
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure a MODEL against `data` with n fresh samples: `evaluation.Measurement` as plain values.

    Raises:
        UserError: the model, the data or the extractor cannot be had, or do not fit each other.
    """
    generator = open_model(model, tracking_uri)
    dataset = load(data, image_size=generator.size, say=say)
    chosen = features.build(extractor, dataset, weights=weights, say=say)
    evaluator = fid.build_evaluator(dataset, chosen, n, say=say)
    measured = evaluation.measure(
        evaluation.from_arrays(generator.sample), dataset, evaluator, n=n, seed=seed
    )
    return {key: _plain(value) for key, value in measured.to_dict().items()}


def register(model: str, *, name: str, alias: str, tracking_uri: str = "") -> registry.Registered:
    """Register the best of a sweep's folder, or give a registered version an alias."""
    uri = tracking(tracking_uri)
    if not is_sweep(model):
        if alias == "auto":
            raise RegistryError(
                "a version gets an alias that is named", seen="no --alias", fix="add --alias champion"
            )
        return registry.set_alias(model, alias, tracking_uri=uri)
    summary = read_json(SweepPaths(Path(model)).summary)
    with tempfile.TemporaryDirectory() as folder:
        where = packed(Path(model), Path(folder))
        facts = registry.from_packed(where).facts
        return registry.register(
            where, tracking_uri=uri, name=name or summary["name"], facts=facts, alias=alias
        )


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
