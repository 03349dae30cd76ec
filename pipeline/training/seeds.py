"""Seeds: of a sweep's trials, sampler and finalists, and of each purpose within a trial.

Sweeps that were begun by an earlier version resume to the same bits: the values never change.
"""

from __future__ import annotations

import numpy as np

EVALUATION_SEED = 20_151_205
"""Seed of the latents of every in-search fid: the same for all trials and ticks."""

_PURPOSES = {"init": 0, "reals": 1, "steps": 2, "balance": 3}


def trial_seed(sweep_seed: int, number: int) -> int:
    """The seed of trial `number` of a sweep."""
    return sweep_seed * 1_000_000 + number


def sampler_seed(sweep_seed: int, number: int) -> int:
    """The seed of the sampler that proposes trial `number` of a sweep, in [0, 2^32)."""
    return _word(sweep_seed, number)


def extra_seed(seed: int, index: int) -> int:
    """The `index`-th other seed (from 1) of a configuration that was trained with `seed`, in [0, 2^32)."""
    return _word(seed, index)


def fresh_seed(seed: int, index: int) -> int:
    """A seed of latents that neither the search nor a measurement with `seed` has used, in [0, 2^32)."""
    return _word(seed, index, EVALUATION_SEED)


def derive_seed(seed: int, purpose: str, position: int = 0) -> int:
    """A seed in [0, 2^63). position: images shown so far.

    purpose: `init` (weights), `reals` (order of the images), `steps` (latents, augmentation), `balance`
    (latents and images of a balance reading).
    """
    words = np.random.SeedSequence((seed, _PURPOSES[purpose], position)).generate_state(2, np.uint32)
    return (int(words[0]) << 31) | (int(words[1]) >> 1)


def _word(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])
