"""The process that `mfgp` proposes by, given the curves of a sweep's trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from pipeline.records import PENALTY
from pipeline.search.space.definition import Space
from pipeline.search.surrogate.curves import Curve, extrapolate
from pipeline.search.surrogate.encoding import Encoder
from pipeline.search.surrogate.gaussian_process import GaussianProcess, Prior, fit_scales

STARTUP = 8
"""Trials that must have reported before the process proposes; until then points are drawn at random."""
_FITTED, _LEARNED = 64, 160  # trials from which the scales are fitted, and from which it predicts
_WORST = 1.0
"""Where bad ends are cut off: as far above the median as the best is below it, times this."""
_FEW, _FAR = 4, 1.0
"""Of fewer trials with a fid, the best tells little by lying below their median: this far at least."""
_NEVER = math.log(PENALTY) - 0.01  # ends above had no fid
_RELEVANT, _LESS, _LEAST = 2.0, -1.0, -3.0
_RELEVANCES = {"lr_g": _RELEVANT, "lr_d": _RELEVANT, "width_g": _LESS, "width_d": _LESS, "gamma": _LESS}
_RELEVANCE_SPREAD = 1.0
"""The prior of the log relevances. Each table of real trials alone leads to these three groups."""


@dataclass(frozen=True)
class CurveModel:
    """A posterior over the log fid at the end of a full trial, given the trials so far.

    best: the lowest end of a trial so far, extrapolated where it has not ended.
    """

    process: GaussianProcess
    best: float

    def improvement(self, points: np.ndarray) -> np.ndarray:
        """Expected improvement of `best` by trials at points (M, width): (M,), in log fid."""
        mean, deviation = self.process.predict(points)
        # What the process cannot explain may make the next trial better as well as worse.
        return expected_improvement(mean, np.hypot(deviation, self.process.noise_deviation), self.best)


def fit_model(space: Space, encoder: Encoder, curves: Sequence[Curve], pending: np.ndarray) -> CurveModel:
    """The model given the curves of trials.

    pending: points (K, width) of running trials without a report; K may be 0. Each counts as if it had ended
    where the model of the others expects it to.
    """
    ends = extrapolate(curves, space.config({}).kimg)
    values, columns = without_outliers(ends.values), list(encoder.columns.values())
    order = np.argsort(values, kind="stable")
    points = np.array([curve.point for curve in curves])
    prior = Prior(np.array([_RELEVANCES.get(name, _LEAST) for name in space.search]), _RELEVANCE_SPREAD)
    few, rows = spread_out(order, _FITTED), spread_out(order, _LEARNED)
    scales = fit_scales(points[few], values[few], ends.variances[few], columns, prior)
    known, at, variances = points[rows], values[rows], ends.variances[rows]
    process = GaussianProcess(known, at, variances, columns, scales)
    if len(pending):
        at = np.concatenate([at, process.predict(pending)[0]])
        variances = np.concatenate([variances, np.zeros(len(pending))])
        process = GaussianProcess(np.concatenate([known, pending]), at, variances, columns, scales)
    return CurveModel(process, float(values.min()))


def without_outliers(values: np.ndarray) -> np.ndarray:
    """Bad values brought closer: how bad a failure is says nothing about where the good points are.

    values: log fids; trials that never had one are at the log of `PENALTY`.
    """
    measured = values[values < _NEVER]
    if not len(measured):
        return values
    median, best = float(np.median(measured)), float(measured.min())
    margin = _WORST * max(median - best, _FAR if len(measured) < _FEW else 0.0)
    capped: np.ndarray = np.minimum(values, median + margin)
    return capped


def spread_out(order: np.ndarray, count: int) -> np.ndarray:
    """`count` of the trials in `order`, best first: the best half of them, and the others evenly spaced."""
    if len(order) <= count:
        return order
    best, rest = order[: count // 2], order[count // 2 :]
    places = np.linspace(0, len(rest) - 1, count - len(best)).round().astype(int)
    return np.concatenate([best, rest[places]])


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """By how much a normal value is expected to lie below `best`, (M,)."""
    gap = (best - mean) / deviation
    found: np.ndarray = deviation * (gap * norm.cdf(gap) + norm.pdf(gap))
    return found
