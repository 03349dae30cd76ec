"""Pruners that were tried beside the default, `asha` (`replays.methods.CHOICES`)."""

from __future__ import annotations

from optuna.pruners import SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import FrozenTrial


class FirstTwo(SuccessiveHalvingPruner):
    """Never stops the first two trials: with two workers, those that start before any has ended."""

    first = 2

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return trial.number >= self.first and super().prune(study, trial)


class FirstEight(FirstTwo):
    """Never stops the first eight trials."""

    first = 8
