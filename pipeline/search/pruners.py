"""Optuna's pruners by the names that `--pruner` takes, their rungs in kimg."""

from __future__ import annotations

import math

import optuna

from pipeline.search.space.definition import Space

REDUCTION = 3
"""Each rung keeps the best third (reference: rank correlation of fids is 0.8 after 5-10 % of a run)."""

GRACE = 0.07
"""Fraction of a full trial before the first rung."""


def make_pruner(name: str, space: Space) -> optuna.pruners.BasePruner:
    """The pruner, with its bounds in kimg from the length of a full trial of the space.

    name: `asha`, `hyperband`, `median` or `none`.
    """
    full = space.config({})
    grace = max(full.tick_kimg, math.ceil(full.kimg * GRACE))
    if name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=REDUCTION)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=grace, max_resource=full.kimg, reduction_factor=REDUCTION
        )
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=grace)
    return optuna.pruners.NopPruner()
