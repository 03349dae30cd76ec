"""The portfolio: a few complementary points, one of which is good on most images, tried before any search.

They were chosen on tables of real trials (`benchmarks/portfolio.py`), so that on each table the best of them
is as good as possible. A space with `portfolio = true` at its top enqueues them after its own points. The
file search_spaces/portfolio/portfolio.toml holds them independently of any space:

    [[point]]
    loss = "hinge"                                # any field of TrialConfig
    width_g = { of_range = 0.5 }                  # a place in the space's range, 0..1, on its scale
    ema_halflife_kimg = { of_trial = 0.05 }       # times the kimg of a full trial
    gamma = { factor = 2e-4, size = 2, batch_size = -1 }   # factor * size^a * batch_size^b

A space takes from a point what it searches. A number outside its range, or none of its choices, becomes
the nearest one; a word that is none of its choices is left to the sampler. What belongs to a penalty (its
strength and interval) is taken only with that penalty.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import TrialConfig
from pipeline.errors import SpaceError
from pipeline.search.recipes import builtin_files, scaled_number
from pipeline.search.space.distribution import Distribution, Value

Point = Mapping[str, Any]
OF_PENALTY = ("gamma", "penalty_interval")


@functools.cache
def load_portfolio(path: Path | None = None) -> tuple[Point, ...]:
    """The points that come with gansweep, or those of another file of the same form."""
    path = path or builtin_files("portfolio/*.toml")["portfolio"]
    points = tomllib.loads(path.read_text(encoding="utf-8"))["point"]
    unknown = {name for point in points for name in point} - TrialConfig.fields().keys()
    if unknown:
        raise SpaceError(
            f"{path.name}: {{seen}} is no hyper-parameter", seen=min(unknown), fix="correct the file"
        )
    return tuple(points)


def point_in_space(
    point: Point, search: Mapping[str, Distribution], fixed: Mapping[str, Value], size: int
) -> dict[str, Value]:
    """What a space takes from a point of the portfolio, for images of `size` pixels."""
    known: dict[str, Value | None] = {**TrialConfig().to_dict(), **fixed}
    for name in ("batch_size", "penalty"):  # others depend on them, whatever their order in the space
        if name in search:
            known[name] = _nearest(point[name], search[name]) if name in point else None
    left = set() if known["penalty"] == point.get("penalty") else set(OF_PENALTY)
    found: dict[str, Value] = {}
    for name, d in search.items():
        conditions = ({**known, **found}.get(other) in values for other, values in d.when.items())
        if name in point and name not in left and all(conditions):
            number = _number(point[name], d, size, known)
            value = None if number is None else _nearest(number, d)
            if value is not None:
                found[name] = value
    return found


def _number(value: Any, d: Distribution, size: int, known: Mapping[str, Any]) -> Any:
    """The value of a field of a point; plain values are themselves. None: it needs what is not known."""
    if not isinstance(value, Mapping):
        return value
    if "of_range" in value:
        if d.choices:
            return d.choices[round(value["of_range"] * (len(d.choices) - 1))]
        return d.from_unit(value["of_range"])
    if "of_trial" in value:
        return value["of_trial"] * known["kimg"]
    return None if known["batch_size"] is None else scaled_number(value, size, known["batch_size"])


def _nearest(value: Any, d: Distribution) -> Value | None:
    """The value that the distribution can draw which is nearest to a number; None for other words."""
    if not d.choices:
        number = min(max(float(value), d.low), d.high)
        return round(number) if d.whole else number
    choices: tuple[Value, ...] = d.choices
    if value in choices:
        return choices[choices.index(value)]
    numbers = [choice for choice in choices if type(choice) in (int, float)]
    if type(value) not in (int, float) or not numbers:
        return None
    return min(numbers, key=lambda choice: abs(float(choice) - value))
