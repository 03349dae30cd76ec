"""What replays are worth: the regret over compute, and the compute until random search's end is reached.

Compute is the seconds of all workers together, busy or not: virtual time times workers. All curves are read
on one grid of it. The curve of a method is the median over its seeds of the incumbent's expected fid
(`replays.clock.Trace`); intervals resample seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from replays.clock import Trace

GRID = 400
DRAWS = 1000
_EARLIEST = 1 / 1000  # of the budget: where the grid begins


@dataclass(frozen=True)
class Curves:
    """The replays of one method: truth[i, j] is seed i's expected fid after grid[j] seconds of compute."""

    grid: np.ndarray
    truth: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """(GRID,): the median over seeds."""
        return np.median(self.truth, axis=0)


def curves_of(traces: list[Trace], workers: int, budget: float) -> Curves:
    """budget: of compute, in seconds."""
    grid = np.geomspace(budget * _EARLIEST, budget, GRID)
    truth = np.array([[trace.at(compute / workers) for compute in grid] for trace in traces])
    return Curves(grid, truth)


def compute_to_reach(curves: Curves, target: float, rows: np.ndarray | None = None) -> float:
    """Compute until the median of the seeds `rows` is at most `target`; infinite where it never is."""
    truth = curves.truth if rows is None else curves.truth[rows]
    good = np.median(truth, axis=0) <= target
    first = int(np.argmax(good))
    return float(curves.grid[first]) if good[first] else math.inf


@dataclass(frozen=True)
class Ratio:
    """A ratio of computes with its 95 % interval. Infinite where the end of the replay came first."""

    value: float
    low: float
    high: float


def compute_ratio(curves: Curves, reference: Curves, random: Curves, seed: int = 0) -> Ratio:
    """Compute of a method over that of `reference`, both until the fid with which `random` ends.

    Where the reference never gets there, its whole compute counts: the ratio is then an upper bound.
    """
    rng, found = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        rows = {id(c): rng.integers(len(c.truth), size=len(c.truth)) for c in (random, reference, curves)}
        target = float(np.median(random.truth[rows[id(random)], -1]))
        ours, base = (compute_to_reach(c, target, rows[id(c)]) for c in (curves, reference))
        found.append(ours / min(base, random.grid[-1]))
    target = float(random.middle[-1])
    value = compute_to_reach(curves, target) / min(compute_to_reach(reference, target), random.grid[-1])
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")
    return Ratio(value, float(low), float(high))
