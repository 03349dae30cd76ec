"""The images and the evaluator of a configuration: what every measurement begins with."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from pipeline.config import SweepConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.data.description import short_form
from pipeline.data.options import DataOptions
from pipeline.metrics.extractors import build_extractor
from pipeline.metrics.frechet import Evaluator, build_evaluator

log = logging.getLogger(__name__)


def load_images(config: SweepConfig, *, out: Path | None = None) -> Dataset:
    """The images of `config.data`, read as it says, with a few log lines about what was understood of them.

    `out` and what it raises are `load_dataset`'s.
    """
    dataset = read_images(config, out=out)
    for line in short_form(dataset):
        log.info(f"images: {line}")
    return dataset


def read_images(config: SweepConfig, *, out: Path | None = None) -> Dataset:
    """`load_images` without a word."""
    return load_dataset(config.data, data_options(config), out=out)


def data_options(config: SweepConfig) -> DataOptions:
    """How `config` says that images are read."""
    return DataOptions(
        size=config.image_size,
        classes=config.classes,
        split=config.split,
        fit=config.fit,
        background=config.background,
        frames=config.frames,
    )


def load_evaluator(config: SweepConfig, dataset: Dataset, samples: int = 0) -> Evaluator:
    """The evaluator of `config.extractor` on `dataset`, on the CPU, with the metrics of the user's own.

    samples: generated images per fid; 0 = `config.fid_samples`. Raises what `build_extractor` and
    `build_evaluator` raise.
    """
    extractor = build_extractor(config.extractor, dataset, weights=config.extractor_weights)
    evaluator = build_evaluator(dataset, extractor, samples or config.fid_samples)
    if evaluator.warning:
        log.warning(evaluator.warning)
    return replace(evaluator, metrics=config.metric_names)


def load_measuring(
    config: SweepConfig, *, samples: int = 0, out: Path | None = None
) -> tuple[Dataset, Evaluator]:
    """`load_images` and `load_evaluator` with nothing between them."""
    dataset = load_images(config, out=out)
    return dataset, load_evaluator(config, dataset, samples)
