"""Optuna as its authors ship it: a sampler and a pruner in a study, asked and told."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna
from optuna import pruners, samplers
from optuna.trial import Trial, TrialState

from pipeline.search.space.definition import Space
from pipeline.search.study import suggest_params
from replays.clock import Job, Report
from replays.peers.base import Objective

SAMPLERS: dict[str, Callable[[int], samplers.BaseSampler]] = {
    "random": lambda seed: samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: samplers.TPESampler(seed=seed),
}
PRUNERS: dict[str, Callable[[int], pruners.BasePruner]] = {
    "none": lambda full: pruners.NopPruner(),
    "median": lambda full: pruners.MedianPruner(),
    "percentile": lambda full: pruners.PercentilePruner(25.0),  # has no default; the documentation's example
    "successive halving": lambda full: pruners.SuccessiveHalvingPruner(min_resource=1),
    "hyperband": lambda full: pruners.HyperbandPruner(min_resource=1, max_resource=full),
    "wilcoxon": lambda full: pruners.WilcoxonPruner(),
}
"""The defaults of each. Only resources are given: with "auto" nothing is pruned before a trial has ended."""


class OptunaSearch:
    """A `replays.clock.Search`. A pruned trial is told PRUNED, all others COMPLETE, with the objective.

    Parameters are suggested one by one, so conditions are Optuna's own.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        workers: int,
        full_kimg: int,
        sampler: str = "tpe",
        pruner: str = "none",
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._study = optuna.create_study(
            study_name=f"replay-{seed}",  # Hyperband's brackets depend on it
            direction="minimize",
            sampler=SAMPLERS[sampler](seed),
            pruner=PRUNERS[pruner](full_kimg),
        )
        self._space, self._full = space, full_kimg
        self._objective = Objective()
        self._trials: dict[int, Trial] = {}
        self._pruned: set[int] = set()

    def ask(self) -> Job:
        trial = self._study.ask()
        self._trials[trial.number] = trial
        return Job(trial.number, suggest_params(self._space, trial), self._full)

    def report(self, report: Report) -> bool:
        number = report.job.trial
        trial = self._trials[number]
        trial.report(self._objective.add(report), step=report.kimg)
        if report.fid is None or report.kimg >= self._full or not trial.should_prune():
            return False
        self._pruned.add(number)
        return True

    def done(self, job: Job) -> None:
        trial = self._trials.pop(job.trial)
        if job.trial in self._pruned:
            self._study.tell(trial, state=TrialState.PRUNED)  # its value: the last one reported
        else:
            self._study.tell(trial, self._objective.of(job.trial))
