"""Ray Tune's own OptunaSearch and ASHAScheduler, driven as Ray's controller drives them, without Ray running.

What `ray/tune/execution/tune_controller.py` does with a result is repeated here: the scheduler decides first;
the searcher's `on_trial_result` is left out for the report that stops a trial; both are told at the end by
`on_trial_complete`, also where ASHA has stopped the trial: Optuna holds it as COMPLETE with the last value.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import optuna
from ray.tune.result import TRAINING_ITERATION
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from pipeline.search.space.definition import Space
from pipeline.search.study import suggest_params
from replays.clock import Job, Report
from replays.peers.base import Objective, OwnRandomState
from replays.peers.optuna_search import SAMPLERS

METRIC = "fid"


class RaySearch:
    """A `replays.clock.Search`: OptunaSearch with ASHA from 1 kimg to the full length.

    sampler: "tpe" is OptunaSearch's default. reduction: of ASHA; 4 is Ray's default.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        workers: int,
        full_kimg: int,
        sampler: str = "tpe",
        reduction: float = 4,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        self._random = OwnRandomState(seed)  # ASHA draws its bracket from numpy's global one
        self._full = full_kimg
        self._searcher = OptunaSearch(
            lambda trial: suggest_params(space, trial),
            metric=METRIC,
            mode="min",
            sampler=SAMPLERS[sampler](seed),
        )
        self._asha = ASHAScheduler(
            metric=METRIC, mode="min", max_t=full_kimg, grace_period=1, reduction_factor=reduction
        )
        self._objective = Objective()
        self._results: dict[int, dict[str, Any]] = {}
        self._trials: dict[int, SimpleNamespace] = {}
        self._asked = 0

    def ask(self) -> Job:
        number, trial = self._asked, SimpleNamespace(trial_id=str(self._asked))
        self._asked += 1
        params = self._searcher.suggest(trial.trial_id)
        with self._random():
            self._asha.on_trial_add(None, trial)
        self._trials[number] = trial
        return Job(number, params, self._full)

    def report(self, report: Report) -> bool:
        number = report.job.trial
        trial = self._trials[number]
        result = {METRIC: self._objective.add(report), TRAINING_ITERATION: report.kimg}
        self._results[number] = result
        if self._asha.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            return True
        self._searcher.on_trial_result(trial.trial_id, result)
        return False

    def done(self, job: Job) -> None:
        trial, result = self._trials.pop(job.trial), self._results.pop(job.trial)
        self._asha.on_trial_complete(None, trial, result)
        self._searcher.on_trial_complete(trial.trial_id, result)
