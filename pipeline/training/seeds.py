"""Seeds: of a trial from its sweep's, and of each purpose within a trial from the trial's."""

from __future__ import annotations

import numpy as np

_PURPOSES = {"init": 0, "reals": 1, "steps": 2, "balance": 3}


def trial_seed(sweep_seed: int, number: int) -> int:
    """The seed of trial `number` of a sweep."""
    return sweep_seed * 1_000_000 + number


def derive_seed(seed: int, purpose: str, position: int = 0) -> int:
    """A seed in [0, 2^63) from a trial's seed, a purpose and the trial's progress.

    purpose: `init` (weights), `reals` (order of the images), `steps` (latents, augmentation), `balance`
    (latents and images of a balance reading). position: images shown so far.
    """
    words = np.random.SeedSequence((seed, _PURPOSES[purpose], position)).generate_state(2, np.uint32)
    return (int(words[0]) << 31) | (int(words[1]) >> 1)
