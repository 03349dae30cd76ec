"""Registration of a MODEL: the best generator of a sweep, or another alias of a version."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import RegistryError
from pipeline.metrics.frechet import Evaluator
from pipeline.metrics.loading import load_measuring
from pipeline.serving.models import default_tracking_uri, is_sweep, pack_best
from pipeline.storage.readonly_copy import fetched_sweep
from pipeline.storage.summary_file import RegisteredVersion
from pipeline.tables import DATA_SOURCES, EXTRACTORS
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.promote import CHAMPION, register_version, set_alias


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
        packed, config = pack_best(root, Path(folder)), _sweep_config(root)
        metadata = LoadedGenerator(packed).metadata
        return register_version(
            packed,
            metadata,
            tracking_uri=uri,
            name=name or config.name,
            alias=alias,
            promote=promote,
            evaluator=None if promote == "never" else _evaluator_of(config, metadata),
        )


def _sweep_config(root: Path) -> SweepConfig:
    stored = tomllib.loads(SweepPaths(root).config.read_text(encoding="utf-8"))
    return SweepConfig.from_dict(stored["sweep"])


def _evaluator_of(config: SweepConfig, metadata: ModelMetadata) -> Evaluator | None:
    """The evaluator of the model's fid; None if that was not measured among the finalists.

    A command on a sweep's folder runs no code that the folder names: also None where it needs such code.
    """
    measured = metadata.measured
    if not measured.evaluator or metadata.withhold or measured.n is None:
        return None
    if EXTRACTORS.is_user_code(config.extractor) or DATA_SOURCES.is_user_code(config.data):
        return None
    return load_measuring(config, samples=measured.n)[1]
