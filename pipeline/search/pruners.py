"""Optuna's pruners by the names that `--pruner` takes, and the user's own, their rungs in kimg."""

from __future__ import annotations

import math

import optuna

from pipeline.search.optuna_class import make_optuna_class
from pipeline.search.space.definition import Space
from pipeline.tables import PRUNERS

REDUCTION = 3
"""Each rung keeps the best third (reference: rank correlation of fids is 0.8 after 5-10 % of a run)."""

GRACE = 0.07
"""Fraction of a full trial before the first rung."""


def make_pruner(name: str, space: Space) -> optuna.pruners.BasePruner:
    """The pruner, with its bounds in kimg from the length of a full trial of the space.

    name: a row of `PRUNERS`, or `module:Class`; the class gets those of the arguments below that it takes.

    Raises:
        ConfigError: the user's own cannot be made.
    """
    full = space.config({})
    grace = max(full.tick_kimg, math.ceil(full.kimg * GRACE))
    known = {
        "min_resource": grace,
        "max_resource": full.kimg,
        "reduction_factor": REDUCTION,
        "n_warmup_steps": grace,
        "n_startup_trials": 5,
    }
    pruner: optuna.pruners.BasePruner = make_optuna_class(PRUNERS, name, optuna.pruners.BasePruner, known)
    return pruner
