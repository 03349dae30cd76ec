"""The metrics of a measurement that are distances of features: fid with its interval, fid by class, kid."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from pipeline.metrics import frechet
from pipeline.metrics.frechet import RealFactor
from pipeline.metrics.memorization import random_subset
from pipeline.metrics.metric_inputs import MetricInputs, draw
from pipeline.metrics.statistics import FeatureStatistics


class FidInterval(NamedTuple):
    """The mean fid over batches, and the interval in which other measurements of the same size lie."""

    fid: float
    fid_low: float
    fid_high: float
    fid_held: float
    fid_even: float
    n_held: int


class _BatchFids(NamedTuple):
    """Of one batch: its fid, those of n_held of its samples to both splits, the variance of its fid."""

    fid: float
    held: float
    even: float
    variance: float


def fid_interval(inputs: MetricInputs) -> FidInterval:
    """The fid of `inputs.repeats` batches, drawn one at a time because they may be large.

    Not a bootstrap: resampling with replacement repeats samples, which looks like less variety and inflates
    the distance itself (1.1 becomes 2.0 at n = 500 in 64 dimensions). The interval is centred on the mean of
    K independent batches, with the standard deviation s from the influence function. It is a normal tolerance
    interval, mean +- s (1.64 + 1.96/sqrt(K)): a prediction interval covers 95 % on average, but much less
    whenever the mean happens to be off; this one covers 95 % in 95 of 100 such cases.

    The distance to the held-out reals is biased upwards because they are few. It is therefore reported beside
    an equally biased one, fid_even: the same samples against as many training reals, others in every batch.
    """

    real, n_held = inputs.evaluator.real, min(len(inputs.batch.images), len(inputs.held))

    def factor(reals: Tensor, seed: int) -> RealFactor:
        return RealFactor.of(FeatureStatistics.of(reals[random_subset(len(reals), n_held, seed)]))

    held_factor, rows = factor(inputs.held, 0), []
    for index, seed in enumerate([inputs.seed, *_more_seeds(inputs.seed, inputs.repeats)]):
        batch = draw(inputs.sample, inputs.evaluator, seed) if index else inputs.batch
        few = batch.features[:n_held]
        rows.append(
            _BatchFids(
                fid=frechet.frechet_of(real, batch.features),
                held=frechet.frechet_of(held_factor, few),
                even=frechet.frechet_of(factor(inputs.train, index), few),
                variance=frechet.frechet_deviation(real, batch.features) ** 2,
            )
        )
    mean = _BatchFids(*np.mean(rows, axis=0).tolist())
    half = math.sqrt(mean.variance) * (1.645 + 1.96 / math.sqrt(len(rows)))
    low, high = max(0.0, mean.fid - half), mean.fid + half
    return FidInterval(mean.fid, low, high, mean.held, mean.even, n_held)


def fid_infinity(inputs: MetricInputs) -> float:
    """The fid extrapolated to infinitely many samples."""
    return frechet.frechet_infinity(inputs.evaluator.real, inputs.batch.features, seed=inputs.seed)


def fid_by_class(inputs: MetricInputs) -> dict[str, float]:
    """The fid within each class, by its name; empty without labels."""
    if not inputs.dataset.labelled:
        return {}
    (real_modes, names), few = inputs.real_modes, inputs.batch.features[inputs.few]
    distances = frechet.frechet_by_class(inputs.train, real_modes, few, inputs.modes)
    return {names[mode]: distance for mode, distance in distances.items()}


class Kids(NamedTuple):
    """KID to the training and to the held-out reals, with standard errors."""

    kid: float
    kid_error: float
    kid_held: float
    kid_held_error: float


def kids(inputs: MetricInputs) -> Kids:
    """KID to both splits."""
    train, held = (
        frechet.kid(reals, inputs.batch.features, seed=inputs.seed) for reals in (inputs.train, inputs.held)
    )
    return Kids(train.value, train.error, held.value, held.error)


def _more_seeds(seed: int, repeats: int) -> list[int]:
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(repeats)][: repeats - 1]
