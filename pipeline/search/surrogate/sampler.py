"""The sampler `mfgp`: a multi-fidelity Gaussian process over all parameters, conditional ones included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from pipeline.search.space.definition import Space
from pipeline.search.surrogate.curves import curves_of
from pipeline.search.surrogate.encoding import Encoder, Params
from pipeline.search.surrogate.model import STARTUP, fit_model

RANDOM = 0.05
"""Fraction of later points that are drawn at random all the same: no region is given up for good."""
CANDIDATES = 300
"""Random points among which the best is proposed.

All are drawn from the whole space: neighbours of the leaders among them made replayed searches slower.
"""
_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class MfgpSampler(BaseSampler):
    """Proposes the point with the largest expected improvement (Jones et al. 1998) of a full trial's log fid.

    It learns from every trial that has reported and did not fail, by where its curve would end
    (`surrogate.curves`). Running trials without a report count with what the process expects of them. What
    an enqueued point lacks is proposed for it.
    All is computed from the study: a resumed search proposes what an uninterrupted one would.

    seed: of this trial. space: whose conditions decide which parameters a point has.
    """

    def __init__(self, seed: int, space: Space, distributions: Mapping[str, BaseDistribution]) -> None:
        self._rng = np.random.default_rng(seed)
        self._space, self._distributions = space, dict(distributions)
        self._encoder = Encoder(space)
        self._independent = RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, for the points that are drawn."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of the parameters that are active at the proposed point; none where it is drawn."""
        others = [t for t in study.get_trials(deepcopy=False, states=_STATES) if t.number != trial.number]
        reported = [t for t in others if t.intermediate_values]
        if len(reported) < STARTUP or self._rng.random() < RANDOM:
            return {}
        running = [t for t in others if t.state == TrialState.RUNNING and not t.intermediate_values]
        return self._propose(study, reported, running, trial.system_attrs.get("fixed_params", {}))

    def _propose(
        self,
        study: optuna.Study,
        reported: Sequence[FrozenTrial],
        pending: Sequence[FrozenTrial],
        enqueued: Mapping[str, Any],
    ) -> Params:
        """The best of random candidates that have the values of an enqueued point."""
        encoder = self._encoder
        curves = curves_of(study, reported, encoder)
        points = np.array([encoder.vector(trial.params) for trial in pending])
        model = fit_model(self._space, encoder, curves, points)
        candidates = encoder.draw(self._rng, CANDIDATES)
        given = encoder.places(enqueued)
        candidates = np.where(np.isnan(given), candidates, given)
        gain = model.improvement(encoder.vectors(candidates))
        return encoder.params(candidates[int(np.argmax(gain))])
