"""Points of a space as vectors, and new points: drawn at random, or changed a little from a known one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Distribution, Value

Params = dict[str, Value]


def to_unit(d: Distribution, value: float) -> float:
    """Where a number lies in its range, 0..1, on the range's own scale."""
    low, high = _bounds(d)
    return ((math.log(value) if d.log else value) - low) / ((high - low) or 1.0)


def from_unit(d: Distribution, place: float) -> Value:
    """The number at a place of the range; places outside 0..1 are its ends."""
    low, high = _bounds(d)
    number = low + min(max(place, 0.0), 1.0) * (high - low)
    number = min(max(math.exp(number) if d.log else number, d.low), d.high)
    return round(number) if d.whole else float(number)


def _bounds(d: Distribution) -> tuple[float, float]:
    return (math.log(d.low), math.log(d.high)) if d.log else (d.low, d.high)


class Encoder:
    """Vectors of the points of a space: a number is one column in 0..1, a choice one column per value.

    A parameter whose condition does not hold is 0.5, or 0 in all columns of its values: all points without it
    are alike in it.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.columns: dict[str, slice] = {}
        self.width = 0
        for name, d in space.search.items():
            self.columns[name] = slice(self.width, self.width + (len(d.choices) or 1))
            self.width = self.columns[name].stop

    def encode(self, params: Mapping[str, Any]) -> np.ndarray:
        """float64 (width,)."""
        vector = np.zeros(self.width)
        for name, d in self.space.search.items():
            at = self.columns[name].start
            if not d.choices:
                vector[at] = to_unit(d, params[name]) if name in params else 0.5
            elif name in params:
                vector[at + d.choices.index(params[name])] = 1.0
        return vector

    def draw(self, rng: np.random.Generator) -> Params:
        """A random point."""
        return self.change({}, rng, 1.0, 1.0)

    def change(self, point: Mapping[str, Value], rng: np.random.Generator, rate: float, size: float) -> Params:
        """A neighbour of a point.

        Each parameter, and at least one, changes with probability `rate`: a number by a normal step of `size`
        of its range, a choice to any of its values. What the point lacks is drawn.
        """
        changed: Params = {}
        forced = rng.integers(len(self.space.search))
        for index, (name, d) in enumerate(self.space.search.items()):
            if not self.space.active(name, changed):
                continue
            known = point.get(name)
            moves = rng.random() < rate or index == forced
            if known is not None and not moves:
                changed[name] = known
            elif d.choices:
                changed[name] = d.choices[rng.integers(len(d.choices))]
            elif known is None:
                changed[name] = from_unit(d, rng.random())
            else:
                changed[name] = from_unit(d, to_unit(d, float(known)) + size * rng.standard_normal())
        return changed
