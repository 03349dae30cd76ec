"""Optuna's samplers by the names that `--sampler` takes."""

from __future__ import annotations

import warnings

import numpy as np
import optuna


def make_sampler(name: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for trial `number`, seeded by the sweep's seed and the number.

    Each trial has a sampler of its own, so that a resumed search draws what an uninterrupted one would.
    name: `tpe` or `random`.
    """
    trial_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    if name == "random":
        return optuna.samplers.RandomSampler(seed=trial_seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `group` is experimental; without it TPE cannot model `when`
        return optuna.samplers.TPESampler(seed=trial_seed, multivariate=True, group=True, constant_liar=True)
