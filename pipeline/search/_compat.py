"""Every private interface of Optuna that this project uses.

Tested with the versions in `TESTED`; tests/search/test_compat.py names what another Optuna lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

if TYPE_CHECKING:
    from optuna._transform import _SearchSpaceTransform
    from optuna.samplers._cmaes import CmaClass
    from optuna.study import Study, StudyDirection

TESTED = ("5.0.0",)
"""Versions of Optuna whose private interfaces are those that are used here."""

JOURNAL_LOCK = ".lock"
"""What the lock file of a journal is called: the journal's name and this."""


def reopen_trial(study: Study, frozen: FrozenTrial) -> Trial:
    """A running trial of an earlier process, to go on with."""
    return Trial(study, frozen._trial_id)


def reported_steps(trial: Trial) -> Mapping[int, float]:
    """The values reported so far, by step."""
    return trial.study._storage.get_trial(trial._trial_id).intermediate_values


class SobolSampler(optuna.samplers.QMCSampler):
    """One scrambled Sobol sequence over all parameters of the space; trial k gets its k-th point.

    Optuna counts the draws in the study, so that a trial that is asked twice moves all later ones, and covers
    only the parameters of the first trial. Here a parameter with `when` has a coordinate of its own, which is
    not used where the condition does not hold.

    sweep_seed: the same for all trials of a sweep: it makes the sequence. distributions: of all parameters.
    """

    def __init__(self, sweep_seed: int, distributions: Mapping[str, BaseDistribution]) -> None:
        super().__init__(scramble=True, seed=sweep_seed)
        self._distributions, self._point = dict(distributions), 0

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._point = trial.number
        return self._distributions

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._point


class ReplayedCmaEsSampler(optuna.samplers.CmaEsSampler):
    """CMA-ES whose optimizer is computed anew from the ended trials, generation by generation.

    Optuna keeps it in the study as a pickle, and unpickles what it finds there: a database that others can
    write would run their code. Here no pickle is written or read.

    unconditional: the parameters without `when`; those that are numbers are evolved.
    """

    def __init__(self, seed: int, unconditional: Mapping[str, BaseDistribution]) -> None:
        import cmaes  # noqa: F401  # Optuna would miss it only at the second trial

        # The last value of a pruned trial ranks it among the others: most trials of a search are pruned.
        super().__init__(seed=seed, consider_pruned_trials=True)
        self._numbers = {
            name: d for name, d in unconditional.items() if not isinstance(d, CategoricalDistribution)
        }
        self._ended: list[FrozenTrial] = []

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._numbers

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> CmaClass | None:
        self._ended = completed_trials
        return None

    def _init_optimizer(self, trans: _SearchSpaceTransform, direction: StudyDirection) -> CmaClass:
        optimizer = super()._init_optimizer(trans, direction)
        popsize = optimizer.population_size
        solutions = self._get_solution_trials(self._ended, optimizer.generation)
        while len(solutions) >= popsize:
            optimizer.tell([(trans.transform(t.params), t.value) for t in solutions[:popsize]])
            solutions = self._get_solution_trials(self._ended, optimizer.generation)
        return optimizer

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Nothing: Optuna's warns at every trial that constraints are not used."""
