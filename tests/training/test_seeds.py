"""Seeds of a sweep's trials, sampler and finalists, and of a trial's purposes."""

from __future__ import annotations

import itertools

from pipeline.training import seeds
from pipeline.training.seeds import derive_seed


def test_seeds_differ_by_purpose_and_position() -> None:
    purposes = ("init", "reals", "steps", "balance")
    keys = list(itertools.product((0, 1, 2**63 - 1), purposes, (0, 1000)))
    found = [derive_seed(*key) for key in keys]
    assert len(set(found)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in found)


def test_seeds_never_change() -> None:
    """Sweeps that were begun earlier must resume to the same bits."""
    found = [derive_seed(7, purpose, 32) for purpose in ("init", "reals", "steps", "balance")]
    assert found == [
        7_113_668_137_434_946_352,
        7_786_553_771_838_531_048,
        8_529_444_527_453_204_003,
        3_011_504_652_297_852_096,
    ]
    assert seeds.trial_seed(7, 3) == 7_000_003
    assert seeds.sampler_seed(7, 3) == 3_466_196_061
    assert seeds.extra_seed(7, 2) == 1_009_178_997
    assert seeds.fresh_seed(7, 2) == 1_454_519_098
