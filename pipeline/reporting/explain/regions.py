"""Where the best trials lie in the space, which bounds they lean on, and the space to search next.

Owns: `winners`, `regions`, `narrowed`. Refuses: why a trial lost (`reasons`), files.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import TrialConfig
from pipeline.errors import SpaceError
from pipeline.reporting.history import History, TrialView, finite
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Distribution

FEWEST = 3
"""Trials with a fid below which there is no region, only points."""

_SHARE, _MOST = 4, 10  # the best quarter, but never more than ten
_EDGE = 0.05  # the winner this near to a bound (as a share of the range) leans on it
_CROWD = 0.1  # ... and so does a third of the best trials within this
_MARGIN = 0.25  # room left around the region, as a share of it
_LEAST_MARGIN = 0.1  # ... and of the whole range
_GROWTH = 0.5  # a bound that was hit moves outwards by this share of the range
_TRIED = 2  # a choice seen in fewer trials than this has not had its chance


@dataclass(frozen=True)
class Region:
    """What the best trials have of one parameter.

    low, high: numbers between which they lie; counts: how many of them made which choice. at: the winner's
    value. hit: the bound on which they lean, `low`, `high` or none. tried: trials per choice, in the sweep.
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
        """The bound that was hit."""
        return self.distribution.low if self.hit == "low" else self.distribution.high


def winners(history: History) -> list[TrialView]:
    """The trial that won, then the rest of the best quarter (3 to 10 trials)."""
    measured = history.measured
    best = list(measured[: max(FEWEST, min(_MOST, math.ceil(len(measured) / _SHARE)))])
    won = history.winner
    return best if won is None or won.fid is None else [won, *(told for told in best if told != won)]


def regions(history: History, best: Sequence[TrialView]) -> list[Region]:
    """A region per searched parameter that one of `best` had, in the space's order."""
    found = []
    for name, d in history.space.search.items() if history.space else ():
        values = [told.params[name] for told in best if name in told.params]
        if values:
            found.append(_choices(history, name, d, values) if d.choices else _numbers(name, d, values))
    return found


def narrowed(history: History) -> Space:
    """The space to search next: the region of the best trials, wider where they lean on a bound.

    Choices that none of them made are gone unless they were hardly tried; the three best are enqueued.

    Raises:
        SpaceError: the sweep has no space, or too few trials with a fid for a region.
    """
    best, space = winners(history), history.space
    if space is None or len(best) < FEWEST:
        raise SpaceError(
            f"a space is narrowed from {FEWEST} trials with a fid",
            seen=f"{len(best)} and {'no space' if space is None else 'a space'}",
            fix="search longer",
        )
    search, decided = dict(space.search), {}
    for region in regions(history, best):
        after = search[region.name] = _next(region)
        if len(after.choices) == 1 or (not after.choices and after.low == after.high):
            decided[region.name] = region.at
    if len(decided) == len(search):
        decided = {}  # nothing would be left to search
    grown = dataclasses.replace(space, search=search, enqueue=_points(best, search))
    return grown.override(decided)  # also drops what can no longer take part


def place(d: Distribution, value: float) -> float:
    """Where a value lies in its range: 0 at the low bound, 1 at the high one."""
    low, high, at = (math.log(x) if d.log else x for x in (d.low, d.high, value))
    return (at - low) / (high - low) if high > low else 0.5


def value_at(d: Distribution, share: float) -> float:
    """The inverse of `place`; shares outside of [0, 1] lie beyond the bounds."""
    low, high = (math.log(x) if d.log else x for x in (d.low, d.high))
    value = low + share * (high - low)
    return math.exp(value) if d.log else value


def _numbers(name: str, d: Distribution, values: Sequence[Any]) -> Region:
    known = [v for v in values if finite(v) is not None] or [d.low, d.high]
    places = [place(d, v) for v in known]
    hit = ""
    for side, away in (("low", places), ("high", [1 - p for p in places])):
        crowd = sum(p <= _CROWD for p in away)
        if away[0] <= _EDGE or (crowd >= 2 and crowd * 3 >= len(away)):
            hit = side
    return Region(name, d, known[0], min(known), max(known), hit)


def _choices(history: History, name: str, d: Distribution, values: Sequence[Any]) -> Region:
    tried = Counter(told.params[name] for told in history.trials if name in told.params)
    counts = dict(Counter(values).most_common())
    return Region(name, d, values[0], counts=counts, tried={choice: tried[choice] for choice in d.choices})


def _next(region: Region) -> Distribution:
    d = region.distribution
    if d.choices:
        kept = [c for c in d.choices if region.counts.get(c) or region.tried.get(c, 0) < _TRIED]
        return dataclasses.replace(d, choices=tuple(kept))
    first, last = place(d, region.low), place(d, region.high)
    margin = max(_LEAST_MARGIN, _MARGIN * (last - first))
    low = value_at(d, -_GROWTH if region.hit == "low" else first - margin)
    high = value_at(d, 1 + _GROWTH if region.hit == "high" else last + margin)
    possible = TrialConfig.fields()[region.name].metadata
    low = max(_round(low, math.floor), possible["low"] if region.hit == "low" else d.low)
    high = min(_round(high, math.ceil), possible["high"] if region.hit == "high" else d.high)
    if d.whole:
        low, high = math.floor(low), math.ceil(high)
    return dataclasses.replace(d, low=min(low, region.low), high=max(high, region.high))


def _round(value: float, towards: Any) -> float:
    """Two significant digits, rounded outwards so that nothing of the region is cut off."""
    if value == 0 or not math.isfinite(value):
        return value
    digits = 1 - math.floor(math.log10(abs(value)))
    scale = 10.0**digits
    rounded = towards(value * scale) / scale
    return float(f"{rounded:.6g}")


def _points(best: Sequence[TrialView], search: dict[str, Distribution]) -> tuple[dict[str, Any], ...]:
    points = ({n: v for n, v in told.params.items() if n in search} for told in best[:3])
    return tuple(p for p in points if all(search[n].contains(v) for n, v in p.items()))
