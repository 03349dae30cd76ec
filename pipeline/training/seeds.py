"""From which seeds everything random in a trial is drawn.

Owns: a trial's seed from its sweep's, a purpose's from its trial's. Refuses: drawing.
"""

from __future__ import annotations

import numpy as np

_PURPOSES = {"init": 0, "reals": 1, "game": 2, "reading": 3}


def seed_of(sweep_seed: int, number: int) -> int:
    """The seed of trial `number` of a sweep."""
    return sweep_seed * 1_000_000 + number


def derive_seed(seed: int, purpose: str, position: int = 0) -> int:
    """One of 2^63 seeds from a trial's seed, what it is for, and how far the trial is."""
    words = np.random.SeedSequence((seed, _PURPOSES[purpose], position)).generate_state(2, np.uint32)
    return (int(words[0]) << 31) | (int(words[1]) >> 1)
