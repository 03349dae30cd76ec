"""Optuna's pruners by the names that `--pruner` takes, and the user's own, their rungs in kimg."""

from __future__ import annotations

import math

from optuna.pruners import BasePruner

from pipeline.search.optuna_class import make_optuna_class
from pipeline.search.space.definition import Space
from pipeline.tables import PRUNERS

REDUCTION = 2
"""Each rung keeps the best half: on no table of `benchmarks/replay.py` worse than a third."""
OLD_REDUCTION = 3
"""Of studies of versions that did not keep it: Optuna knows a rung by its number, not by its length."""
_GRACE = 0.07  # fraction of a full trial before the first rung


def make_pruner(name: str, space: Space, reduction: int = REDUCTION) -> BasePruner:
    """The pruner, with its bounds in kimg from the length of a full trial of the space.

    name: a row of `PRUNERS`, or `module:Class`; the class gets those of the arguments below that it takes.
    reduction: one in so many trials goes on from a rung to the next; it must not change within a study.

    Raises:
        ConfigError: the user's own cannot be made.
    """
    full = space.config({})
    grace = max(full.tick_kimg, math.ceil(full.kimg * _GRACE))
    known = {
        "min_resource": grace,
        "max_resource": full.kimg,
        "reduction_factor": reduction,
        "n_warmup_steps": grace,
        "n_startup_trials": 5,
    }
    return make_optuna_class(PRUNERS, name, BasePruner, known)  # type: ignore[no-any-return]
