"""What a MODEL is, and how it is opened, exported and registered.

A MODEL is `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or the folder or URL of a sweep (its best generator).
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import CheckpointError, RegistryError, SweepError
from pipeline.metrics.frechet import Evaluator
from pipeline.metrics.loading import load_measuring
from pipeline.storage.addresses import absolute_sqlite
from pipeline.storage.moved_sweep import check_inputs_remain, read_sweep_toml
from pipeline.storage.readonly_copy import fetched_sweep
from pipeline.storage.summary_file import RegisteredVersion, read_summary
from pipeline.storage.typed_json import to_json
from pipeline.tables import DATA_SOURCES, EXTRACTORS
from pipeline.tracking.moved_store import check_store_remains, without_gaps
from pipeline.tracking.registry.export import export_generator
from pipeline.tracking.registry.load import LoadedGenerator, fetched_model
from pipeline.tracking.registry.metadata import SCHEMA, ModelMetadata
from pipeline.tracking.registry.names import CHAMPION, check_alias, check_registration
from pipeline.tracking.registry.pack import pack_generator, pick_device
from pipeline.tracking.registry.promote import register_version, set_alias
from pipeline.tracking.tracking_uri import check_server, default_uri
from pipeline.training.checkpoint import best_generator

NOT_MEASURED = "the sweep has not measured its finalists"


def default_tracking_uri(uri: str) -> str:
    """The tracking store of a MODEL: as given, else MLFLOW_TRACKING_URI, else the one below ./runs."""
    return absolute_sqlite(uri or os.environ.get("MLFLOW_TRACKING_URI", "")) or default_uri(Path("runs"))


def sweep_tracking_uri(root: Path, uri: str) -> str:
    """The tracking store for the model of the sweep in `root`: its own where none is given.

    Raises:
        RegistryError: its own has gone, or its address is not wholly known.
    """
    if uri or os.environ.get("MLFLOW_TRACKING_URI"):
        return default_tracking_uri(uri)
    paths = SweepPaths(root)
    own = str(read_sweep_toml(paths).get("registry", {}).get("tracking_uri", ""))
    check_store_remains(paths, own, f"gansweep register {shlex.quote(str(root))}")
    return without_gaps(own) or default_tracking_uri("")


def load_generator(model: str, *, tracking_uri: str = "", device: str = "cpu") -> LoadedGenerator:
    """Load the generator behind a MODEL, without running any code that lies in it.

        generator = load_generator("models:/mnist5k@champion")
        images, labels = generator.sample(16, seed=0, label=3)  # or label="cat"

    `images` are uint8 (n,H,W,C) in 0..255 with C = 1 (grey) or 3 (RGB); `labels` are int64 (n,), or None
    where `generator.classes` is 0. The same model, seed, label and truncation give the same bytes, whatever
    n is; another device may differ in the last bit. `generator.metadata` holds what the model claims.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or the folder or URL of a sweep (its best).
        tracking_uri: MLflow store or server; else MLFLOW_TRACKING_URI, else the one below ./runs.
        device: `cpu` (the bytes of `gansweep sample`), `cuda`, or `auto` (= cpu).

    Raises:
        RegistryError: no such model, alias or version; its files were altered; the registry does not answer;
            there is no GPU.
        SweepError: no such sweep, or it has no measured trial.
    """
    chosen = pick_device(device)
    with open_packed(model, tracking_uri) as folder:
        return LoadedGenerator(folder, chosen)


@contextlib.contextmanager
def open_packed(model: str, tracking_uri: str = "") -> Iterator[Path]:
    """Context manager: the packed folder of a MODEL, perhaps a temporary copy. Raises as `load_generator`."""
    if model.startswith("models:"):
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
    if os.path.isfile(paths.packed / "files.json"):
        return paths.packed
    summary = read_summary(paths.summary)
    best = summary.best if summary else None
    if best is None:
        raise SweepError(
            "{seen} has no measured trial",
            rule="a MODEL is models:/NAME@ALIAS, models:/NAME/VERSION or a sweep with one",
            seen=str(root),
            fix="name the folder that `run` made, or wait for its first fid",
        )
    try:
        generator, _ = best_generator(paths.trial(best.trial))
    except CheckpointError as error:
        problem = "the best trial's checkpoint is missing or damaged"
        raise SweepError(problem, seen=str(error), fix="run it again") from error
    metadata = ModelMetadata.from_json({**to_json(best), "withhold": [NOT_MEASURED], "schema": SCHEMA})
    return pack_generator(generator, scratch_dir, metadata)


def export(model: str, out: Path | None, *, format: str, tracking_uri: str = "") -> tuple[Path, str]:
    """Write a MODEL as one file; returns its path and a line that describes its content.

    Raises:
        RegistryError: an unknown format; ONNX is not installed, or differs from torch.
    """
    name = re.sub(r"\W+", "-", model.removeprefix("models:/")).strip("-") or "generator"
    out = out or Path(f"{name}.{format}")
    with open_packed(model, tracking_uri) as folder:
        return out, export_generator(folder, out, format)


def register(
    model: str, *, name: str = "", alias: str = "auto", promote: str = CHAMPION, tracking_uri: str = ""
) -> RegisteredVersion:
    """Register the best generator of a sweep, or give an alias to a registered version.

    Raises:
        UserError: as `register_version`; or the sweep's images, which verify its fid, are missing.
    """
    check_alias(alias)
    if model.startswith("models:"):
        if alias == "auto":
            raise RegistryError(
                "no --alias was given", rule="a registered version needs one", fix="add --alias champion"
            )
        return set_alias(model, alias, tracking_uri=default_tracking_uri(tracking_uri))
    check_registration(name or CHAMPION, promote)
    with fetched_sweep(model) as root, tempfile.TemporaryDirectory() as folder:
        uri = sweep_tracking_uri(root, tracking_uri) if os.path.exists(SweepPaths(root).config) else ""
        if uri:
            check_server(uri)
        packed = pack_best(root, Path(folder))
        config = SweepConfig.from_dict(read_sweep_toml(SweepPaths(root))["sweep"])
        generator = LoadedGenerator(packed)
        sized = replace(config, image_size=config.image_size or generator.size)  # as the sweep prepared them
        return register_version(
            packed,
            generator.metadata,
            tracking_uri=uri,
            name=name or config.name,
            alias=alias,
            promote=promote,
            evaluator=None if promote == "never" else _evaluator_of(sized, generator.metadata, root),
        )


def _evaluator_of(config: SweepConfig, metadata: ModelMetadata, root: Path) -> Evaluator | None:
    """The evaluator of the model's fid; None if that was not measured among the finalists.

    A command on a sweep's folder, `root`, runs no code that the folder names: also None where it needs such
    code.
    """
    if not metadata.evaluator or metadata.withhold or metadata.n is None:
        return None
    if EXTRACTORS.is_user_code(config.extractor) or DATA_SOURCES.is_user_code(config.data):
        return None
    check_inputs_remain(config, str(root))
    return load_measuring(config, samples=metadata.n, out=root.resolve().parent)[1]
