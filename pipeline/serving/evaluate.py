"""Measurement of a MODEL, or of the samples of another tool, against images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.config import SweepConfig
from pipeline.data import external_samples
from pipeline.errors import DataError
from pipeline.metrics import evaluation
from pipeline.metrics.generator_metrics import Sample
from pipeline.metrics.loading import load_evaluator, load_images
from pipeline.metrics.measurement import Measurement
from pipeline.metrics.second_extractor import load_second
from pipeline.serving.models import load_generator
from pipeline.tables import DATA_SOURCES
from pipeline.user_code import read_code, use_code

log = logging.getLogger(__name__)

DEFAULT_SAMPLES = 5000


def evaluate(
    model: str,
    *,
    data: str,
    n: int = 0,
    seed: int = 1,
    extractor: str = "auto",
    extractor_weights: str = "",
    metrics: Sequence[str] = (),
    tracking_uri: str = "",
) -> Measurement:
    """Measure a generator: fid with an interval, kid, precision, recall, memorisation, mode collapse.

        found = evaluate("models:/mnist5k@champion", data="mnist5k")
        found.fid, found.fid_low, found.fid_high, found.verdicts

    The images are brought to the generator's size. User code, `module:function`, is read from the current
    folder or is installed.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, a sweep's folder or URL, or `samples:PATH` (the
            samples of another tool: a folder or a zip of images, or an npz; as `folder:`, `npz:` read them).
        data: mnist5k, digits, folder:PATH, npz:PATH, ..., or `module:function`.
        n: samples per fid, at least 16; 0 = 5000, or all that PATH has.
        seed: of the samples, at least 0; the same n and seed give the same numbers on one machine.
        extractor: auto, classifier, efficientnet, inception, dinov2, pixels or `module:function`. A second
            one, chosen by what is installed, measures the first n samples too: `evaluate_as` takes another.
        extractor_weights: file of the extractor's weights.
        metrics: your own, `module:function` each.
        tracking_uri: MLflow store or server; else MLFLOW_TRACKING_URI, else the one below ./runs.

    Raises:
        UserError: the model, the data, the extractor or a metric cannot be loaded, or do not fit each other.
    """
    config = SweepConfig(
        data=data, extractor=extractor, extractor_weights=extractor_weights, metrics=",".join(metrics)
    )
    return evaluate_as(config, model, n=n, seed=seed, tracking_uri=tracking_uri)


def evaluate_as(
    config: SweepConfig, model: str, *, n: int = 0, seed: int = 1, tracking_uri: str = ""
) -> Measurement:
    """Measure a MODEL against `config.data` as `evaluate` does.

    Args:
        config: data, image_size (0 = the model's), extractor, extractor_weights, second_extractor and metrics
            count.
    """
    own_data = [config.data] if DATA_SOURCES.is_user_code(config.data) else []
    extractors = (config.extractor, config.second_extractor)
    use_code(read_code([*own_data, *extractors, *config.metric_names], [Path.cwd()]))
    if model.startswith(external_samples.PREFIX):
        dataset = load_images(config)
        path = Path(model.removeprefix(external_samples.PREFIX)).expanduser()
        wanted = external_samples.Wanted(dataset.size, dataset.channels, dataset.classes)
        images, labels, findings = external_samples.read_samples(path, wanted)
        for line in (*findings.notes, *(f"{left.count} {why}" for why, left in findings.left_out.items())):
            log.info(f"samples: {line.removeprefix('samples: ')}")
        sample: Sample = evaluation.from_pool(images, labels, seed)
        if n > len(images):
            rule, fix = f"there are {len(images)} samples", f"write -n {len(images)}"
            raise DataError("-n {seen} is out of range", rule=rule, seen=n, fix=fix)
        n = n or len(images)
        repeats = min(evaluation.REPEATS, len(images) // n)
    else:
        generator = load_generator(model, tracking_uri=tracking_uri)
        dataset = load_images(replace(config, image_size=config.image_size or generator.size))
        sample, repeats = evaluation.from_arrays(generator.sample), evaluation.REPEATS
    n = n or DEFAULT_SAMPLES
    evaluator = load_evaluator(config, dataset, n)
    evaluator = replace(evaluator, second=load_second(config, dataset, evaluator, images=n))
    return evaluation.measure_generator(sample, dataset, evaluator, n=n, seed=seed, repeats=repeats)
