"""Where the best trials lie in the search space, which bounds they are near, and the space to search next."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import SweepPaths, TrialConfig
from pipeline.errors import SpaceError
from pipeline.reporting.history import History, TrialView
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Distribution
from pipeline.storage.readable import finite

MIN_TRIALS = 3
"""Trials with a fid that a region needs."""

_QUARTER, _MAX_TRIALS = 4, 10  # the best quarter of the trials, but at most ten
_NEAR_WINNER = 0.05  # a bound is hit if the winner is this close to it, as a fraction of the range
_NEAR_MANY = 0.1  # ... or if a third of the best trials, two at least, is this close
_MARGIN = 0.25  # room left around the region, as a fraction of the region's width
_MIN_MARGIN = 0.1  # ... and at least this fraction of the whole range
_GROWTH = 0.5  # a bound that was hit moves outwards by this fraction of the range
_MIN_TRIED = 2  # a choice of fewer trials than this is not dropped: too little is known of it


@dataclass(frozen=True)
class Region:
    """The values of one searched hyper-parameter in the best trials. at: the winner's value.

    Of a number, low, high: its lowest and highest value; hit: the bound that they are near, `low` or `high`,
    or empty. Of a choice, counts: how many of the best trials have each, the most frequent first; tried: how
    many trials of the whole sweep have each.
    """

    name: str
    distribution: Distribution
    at: Any
    low: float = 0.0
    high: float = 0.0
    hit: str = ""
    counts: dict[Any, int] = field(default_factory=dict)
    tried: dict[Any, int] = field(default_factory=dict)

    @property
    def bound(self) -> float:
        """The value of the bound that was hit; meaningless if `hit` is empty."""
        return self.distribution.low if self.hit == "low" else self.distribution.high


def best_trials(history: History) -> list[TrialView]:
    """The winner, then the rest of the best quarter of the trials that have a fid (3 to 10 trials)."""
    measured = history.measured
    best = list(measured[: max(MIN_TRIALS, min(_MAX_TRIALS, math.ceil(len(measured) / _QUARTER)))])
    winner = history.winner
    if winner is None or winner.fid is None:
        return best
    return [winner, *(trial for trial in best if trial != winner)]


def regions(history: History, best: Sequence[TrialView]) -> list[Region]:
    """A region for each searched hyper-parameter that a trial of `best` has, in the space's order."""
    found = []
    for name, d in history.space.search.items() if history.space else ():
        values = [trial.params[name] for trial in best if name in trial.params]
        if values:
            found.append(_choices(history, name, d, values) if d.choices else _numbers(name, d, values))
    return found


def narrowed_space(history: History) -> Space:
    """The space to search next: the region of the best trials, wider at the bounds that they are near.

    Choices that none of the best trials has are dropped, unless fewer than two trials tried them. A
    hyper-parameter with a single value left is fixed. The three best trials are enqueued.

    Raises:
        SpaceError: the sweep has no space, or fewer than `MIN_TRIALS` trials with a fid.
    """
    best, space = best_trials(history), history.space
    if space is None:
        raise SpaceError(
            "the sweep's search space cannot be read",
            rule="a space is narrowed from the [space] of sweep.toml",
            seen=str(SweepPaths(history.root).config),
            fix="explain it with the version that wrote it",
        )
    if len(best) < MIN_TRIALS:
        raise SpaceError(
            "only {seen} trials have a fid",
            rule=f"a space is narrowed from at least {MIN_TRIALS} trials",
            seen=len(best),
            fix="search longer",
        )
    search, fixed = dict(space.search), {}
    for region in regions(history, best):
        after = search[region.name] = _next_range(region)
        if len(after.choices) == 1 or (not after.choices and after.low == after.high):
            fixed[region.name] = region.at
    if len(fixed) == len(search):
        fixed = {}  # nothing would be left to search
    narrowed = dataclasses.replace(space, search=search, enqueue=_points(best, search))
    return narrowed.override(fixed)  # also drops parameters whose condition can no longer be met


def position(d: Distribution, value: float) -> float:
    """Where a value lies in its range: 0 at the low bound, 1 at the high one; on a log scale if `d.log`."""
    low, high, at = (math.log(x) if d.log else x for x in (d.low, d.high, value))
    return (at - low) / (high - low) if high > low else 0.5


def value_at(d: Distribution, fraction: float) -> float:
    """The inverse of `position`; fractions outside of [0, 1] give values beyond the bounds."""
    low, high = (math.log(x) if d.log else x for x in (d.low, d.high))
    value = low + fraction * (high - low)
    return math.exp(value) if d.log else value


def _numbers(name: str, d: Distribution, values: Sequence[Any]) -> Region:
    known = [v for v in values if finite(v) is not None] or [d.low, d.high]
    positions = [position(d, v) for v in known]
    hit = ""
    for side, distances in (("low", positions), ("high", [1 - p for p in positions])):
        near = sum(distance <= _NEAR_MANY for distance in distances)
        if distances[0] <= _NEAR_WINNER or (near >= 2 and near * 3 >= len(distances)):
            hit = side
    return Region(name, d, known[0], min(known), max(known), hit)


def _choices(history: History, name: str, d: Distribution, values: Sequence[Any]) -> Region:
    tried = Counter(trial.params[name] for trial in history.trials if name in trial.params)
    counts = dict(Counter(values).most_common())
    return Region(name, d, values[0], counts=counts, tried={choice: tried[choice] for choice in d.choices})


def _next_range(region: Region) -> Distribution:
    d = region.distribution
    if d.choices:
        kept = [c for c in d.choices if region.counts.get(c) or region.tried.get(c, 0) < _MIN_TRIED]
        return dataclasses.replace(d, choices=tuple(kept))
    first, last = position(d, region.low), position(d, region.high)
    margin = max(_MIN_MARGIN, _MARGIN * (last - first))
    low = value_at(d, -_GROWTH if region.hit == "low" else first - margin)
    high = value_at(d, 1 + _GROWTH if region.hit == "high" else last + margin)
    allowed = TrialConfig.fields()[region.name].metadata
    low = max(_round(low, math.floor), allowed["low"] if region.hit == "low" else d.low)
    high = min(_round(high, math.ceil), allowed["high"] if region.hit == "high" else d.high)
    if d.whole:
        low, high = math.floor(low), math.ceil(high)
    return dataclasses.replace(d, low=min(low, region.low), high=max(high, region.high))


def _round(value: float, towards: Any) -> float:
    """`value` with two significant digits, rounded by `towards` (math.floor or math.ceil)."""
    if value == 0 or not math.isfinite(value):
        return value
    scale = 10.0 ** (1 - math.floor(math.log10(abs(value))))
    return float(f"{towards(value * scale) / scale:.6g}")


def _points(best: Sequence[TrialView], search: dict[str, Distribution]) -> tuple[Mapping[str, Any], ...]:
    points = ({n: v for n, v in trial.params.items() if n in search} for trial in best[:3])
    return tuple(p for p in points if all(search[n].contains(v) for n, v in p.items()))
