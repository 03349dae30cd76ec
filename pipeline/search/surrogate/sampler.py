"""The sampler `mfgp`: a multi-fidelity Gaussian process over all parameters, conditional ones included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm

from pipeline.search.space.definition import Space
from pipeline.search.surrogate.curves import Curve, curves_of, extrapolate
from pipeline.search.surrogate.encoding import Encoder, Params
from pipeline.search.surrogate.gaussian_process import GaussianProcess, Prior, fit_scales

STARTUP = 8
"""Trials that must have reported before the process proposes; until then points are drawn at random."""
RANDOM = 0.05
"""Fraction of later points that are drawn at random all the same: no region is given up for good."""
CANDIDATES = 300
"""Random points among which the best is proposed.

All are drawn from the whole space: neighbours of the leaders among them made replayed searches slower
(docs/benchmarks/search.md).
"""
_FITTED, _LEARNED = 64, 160  # trials from which the scales are fitted, and from which it predicts
_WORST = 1.0  # where bad ends are cut off: above the median by so many of its distances to the best
_RELEVANT, _LESS, _LEAST = 2.0, -1.0, -3.0
_RELEVANCES = {"lr_g": _RELEVANT, "lr_d": _RELEVANT, "width_g": _LESS, "width_d": _LESS, "gamma": _LESS}
_RELEVANCE_SPREAD = 1.0
"""The prior of the log relevances. Each table of real trials alone leads to these three groups."""
_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class MfgpSampler(BaseSampler):
    """Proposes the point with the largest expected improvement (Jones et al. 1998) of a full trial's log fid.

    It learns from every trial that has reported, whatever stopped it, by where its curve would end
    (`surrogate.curves`). Running trials without a report count with what the process expects of them.
    All is computed from the study: a resumed search proposes what an uninterrupted one would.

    seed: of this trial. space: whose conditions decide which parameters a point has.
    """

    def __init__(self, seed: int, space: Space, distributions: Mapping[str, BaseDistribution]) -> None:
        self._rng = np.random.default_rng(seed)
        self._space, self._distributions = space, dict(distributions)
        self._encoder = Encoder(space)
        self._columns = list(self._encoder.columns.values())
        self._full_kimg = space.config({}).kimg
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """What an enqueued point lacks, and what a proposal cannot have: a random value."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of the parameters that are active at the proposed point."""
        others = [t for t in study.get_trials(deepcopy=False, states=_STATES) if t.number != trial.number]
        reported = [t for t in others if t.intermediate_values]
        if len(reported) < STARTUP or self._rng.random() < RANDOM:
            return self._encoder.params(self._encoder.draw(self._rng, 1)[0])
        return self._propose(study, reported, [t for t in others if not t.intermediate_values])

    def _propose(
        self, study: optuna.Study, reported: Sequence[FrozenTrial], waiting: Sequence[FrozenTrial]
    ) -> Params:
        curves = curves_of(study, reported, self._encoder)
        ends = extrapolate(curves, self._full_kimg)
        values = without_outliers(ends.values)
        order = np.argsort(values, kind="stable")
        process = self._fit(curves, values, ends.variances, order, waiting)
        candidates = self._encoder.draw(self._rng, CANDIDATES)
        mean, deviation = process.predict(self._encoder.vectors(candidates))
        # What the process cannot explain may make the next trial better as well as worse.
        deviation = np.hypot(deviation, process.noise_deviation)
        gain = expected_improvement(mean, deviation, float(values.min()))
        return self._encoder.params(candidates[int(np.argmax(gain))])

    def _fit(
        self,
        curves: Sequence[Curve],
        values: np.ndarray,
        variances: np.ndarray,
        order: np.ndarray,
        waiting: Sequence[FrozenTrial],
    ) -> GaussianProcess:
        """The process given the trials, and the waiting ones at the values that it expects of them."""
        points = np.array([curve.point for curve in curves])
        means = np.array([_RELEVANCES.get(name, _LEAST) for name in self._space.search])
        prior = Prior(means, _RELEVANCE_SPREAD)
        few = spread_out(order, _FITTED)
        scales = fit_scales(points[few], values[few], variances[few], self._columns, prior)
        rows = spread_out(order, _LEARNED)
        points, values, variances = points[rows], values[rows], variances[rows]
        process = GaussianProcess(points, values, variances, self._columns, scales)
        if not waiting:
            return process
        more = np.array([self._encoder.vector(trial.params) for trial in waiting])
        points = np.concatenate([points, more])
        values = np.concatenate([values, process.predict(more)[0]])
        variances = np.concatenate([variances, np.zeros(len(more))])
        return GaussianProcess(points, values, variances, self._columns, scales)


def without_outliers(values: np.ndarray) -> np.ndarray:
    """Bad values brought closer: how bad a failure is says nothing about where the good points are."""
    middle, best = float(np.median(values)), float(values.min())
    return np.minimum(values, middle + _WORST * (middle - best))


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
