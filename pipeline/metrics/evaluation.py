"""The full evaluation of a trained generator: all metrics, an interval for its fid, and verdicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.data.source_types import Pixels
from pipeline.errors import EvaluatorError
from pipeline.metrics.extractors import Extractor
from pipeline.metrics.frechet import Evaluator
from pipeline.metrics.generator_metrics import MetricInputs, Sample, draw
from pipeline.metrics.measurement import METRICS, Measurement
from pipeline.metrics.memorization import random_subset
from pipeline.metrics.statistics import BATCH
from pipeline.tables import METRIC_FORM, load_target
from pipeline.user_code import load, run

REPEATS = 4
"""Independent batches of n samples whose fids are averaged."""
MIN_SAMPLES = 16
"""Fewest samples of a measurement."""


def measure_generator(
    sample: Sample,
    dataset: Dataset,
    evaluator: Evaluator,
    *,
    n: int,
    seed: int,
    repeats: int = REPEATS,
    on_progress: Callable[[], object] = lambda: None,
) -> Measurement:
    """Measure the generator behind `sample` with `repeats` batches of n images.

    Args:
        sample: makes images; the first batch is `sample(n, seed)`, the others have seeds derived from `seed`.
        evaluator: of `dataset`; its number of samples is replaced by n. Its `second`, if any, sees the first
            batch too, on the device on which it is.
        n: at least 16. repeats: at least 1.
        on_progress: called from time to time.

    Raises:
        EvaluatorError: n is too small, the images are not of the data's shape, their features are not
            finite, or a metric of the user's own returns no finite number.
        ConfigError: a metric of the user's own cannot be loaded, or fails.
    """
    if n < MIN_SAMPLES:
        rule = f"a measurement needs at least {MIN_SAMPLES}"
        raise EvaluatorError("{seen} samples are too few", rule=rule, seen=n, fix="the default is 5000")
    second = evaluator.second and dataclasses.replace(evaluator.second, samples=n)
    evaluator = dataclasses.replace(evaluator, samples=n, second=second)
    train, held = (_extract(evaluator.extractor, split) for split in (dataset.train, dataset.held))
    inputs = MetricInputs(
        sample=sample,
        dataset=dataset,
        evaluator=evaluator,
        seed=seed,
        repeats=repeats,
        batch=draw(sample, evaluator, seed),
        train=train,
        held=held,
        on_progress=on_progress,
    )
    values: dict[str, object] = {}
    for name, metric in METRICS.items():
        if name not in values:
            found = load_target(metric.target)(inputs)
            values |= found if isinstance(found, dict) else {name: found}
    values |= {"n": n, "seed": seed, "repeats": repeats, "notes": _notes(evaluator, len(held))}
    values |= {"extractor": evaluator.extractor_name, "evaluator": evaluator.hash}
    if second is not None:
        values |= {"second_extractor": second.extractor_name, "second_evaluator": second.hash}
    few = random_subset(len(train), n, seed).numpy()  # as many reals as samples, if there are
    images, reals = inputs.batch.images.numpy(), dataset.train[few]
    custom = {name: custom_metric(name, images, reals) for name in evaluator.metrics}
    return Measurement(**values, custom=custom)  # type: ignore[arg-type]


def _notes(evaluator: Evaluator, held: int) -> tuple[str, ...]:
    few_held = f"{held} images are held out: fid_held, fid_even and kid_held are of as many samples"
    return tuple(note for note in (evaluator.warning, few_held if evaluator.samples > held else "") if note)


def custom_metric(name: str, images: Pixels, reals: Pixels) -> float:
    """A metric of the user's own, `module:function`, of images and reals, both uint8 (n,H,W,C).

    Raises:
        ConfigError: it cannot be loaded, or fails.
        EvaluatorError: it is not finite.
    """
    function, problem = load(name, METRIC_FORM), f"the metric {name} does not work"
    # Of copies: it may write to them.
    value = run(problem, name, lambda: float(function(images.copy(), reals.copy())))
    if not math.isfinite(value):
        rule, fix = "it returns a finite number", f"correct {name.split(':')[0]}.py"
        raise EvaluatorError(problem, rule=rule, seen=value, fix=fix)
    return value


def from_arrays(draw_arrays: Callable[[int, int], tuple[np.ndarray, np.ndarray | None]]) -> Sample:
    """A `Sample` from a function that returns NumPy arrays (a registered generator)."""

    def sample(n: int, seed: int) -> tuple[Tensor, Tensor | None]:
        images, labels = draw_arrays(n, seed)
        return torch.from_numpy(images), None if labels is None else torch.from_numpy(labels)

    return sample


def from_pool(images: np.ndarray, labels: np.ndarray | None, seed: int) -> Sample:
    """A `Sample` from stored images uint8 (N,H,W,C): each call takes others of them, in random order.

    A call that asks for more than are left raises EvaluatorError.
    """
    order = np.random.default_rng([seed, 2]).permutation(len(images))
    taken = 0

    def sample(n: int, seed: int) -> tuple[Tensor, Tensor | None]:
        nonlocal taken
        picked = order[taken : taken + n]
        if len(picked) < n:
            problem, rule = f"{n} samples are needed, {{seen}} are left", "no sample is used twice"
            raise EvaluatorError(problem, rule=rule, seen=len(picked), fix=f"lower -n {n}")
        taken += n
        return torch.from_numpy(images[picked]), None if labels is None else torch.from_numpy(labels[picked])

    return sample


def _extract(extractor: Extractor, images: np.ndarray) -> Tensor:
    return torch.cat([extractor(block).cpu() for block in torch.split(torch.from_numpy(images), BATCH)])
