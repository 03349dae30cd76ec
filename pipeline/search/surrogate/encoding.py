"""Points of a space as vectors, many at a time.

A point has two forms here. Its places (P,): of each parameter, where a number lies in its range (0..1, on the
range's scale), or the index of a choice; NaN where the point lacks it. Its vector (width,), which distances
are taken of: the same, with one column per value of a choice, and parameters whose condition does not hold
neutral.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Value

Params = dict[str, Value]


class Encoder:
    """Places and vectors of the points of a space; P is the number of its searched parameters."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.names = list(space.search)
        self.columns: dict[str, slice] = {}
        self.width = 0
        for name, d in space.search.items():
            self.columns[name] = slice(self.width, self.width + (len(d.choices) or 1))
            self.width = self.columns[name].stop

    def places(self, params: Mapping[str, Any]) -> np.ndarray:
        """float64 (P,)."""
        found = np.full(len(self.names), np.nan)
        for index, (name, d) in enumerate(self.space.search.items()):
            if name in params:
                found[index] = d.choices.index(params[name]) if d.choices else d.to_unit(params[name])
        return found

    def params(self, places: np.ndarray) -> Params:
        """The values of the parameters whose condition holds. places: (P,) without NaN."""
        found: Params = {}
        for place, (name, d) in zip(places, self.space.search.items(), strict=True):
            if self.space.active(name, found):
                found[name] = d.choices[int(place)] if d.choices else d.from_unit(float(place))
        return found

    def vectors(self, places: np.ndarray) -> np.ndarray:
        """float64 (M, width) of places (M, P)."""
        found = np.zeros((len(places), self.width))
        active: dict[str, np.ndarray] = {}
        for index, (name, d) in enumerate(self.space.search.items()):
            active[name] = self._active(name, places, active)
            place, column = places[:, index], self.columns[name]
            if d.choices:
                hot = np.arange(len(d.choices)) == np.nan_to_num(place, nan=-1.0)[:, None]
                found[:, column] = hot & active[name][:, None]
            else:
                found[:, column.start] = np.where(active[name] & ~np.isnan(place), place, 0.5)
        return found

    def vector(self, params: Mapping[str, Any]) -> np.ndarray:
        """float64 (width,)."""
        found: np.ndarray = self.vectors(self.places(params)[None])[0]
        return found

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Places (count, P) of random points."""
        found = rng.random((count, len(self.names)))
        for index, d in enumerate(self.space.search.values()):
            if d.choices:
                found[:, index] = np.floor(found[:, index] * len(d.choices))
        return self._whole(found)

    def _whole(self, places: np.ndarray) -> np.ndarray:
        """The same with the places of integers where an integer lies."""
        for index, d in enumerate(self.space.search.values()):
            if d.whole:
                # As Optuna draws: half a unit beyond both ends, so that these are not drawn half as often.
                ends = np.array([d.low - 0.5, d.high + 0.5])
                ends = np.log(ends) if d.log else ends
                number = ends[0] + places[:, index] * (ends[1] - ends[0])
                number = np.round(np.exp(number) if d.log else number).clip(d.low, d.high)
                low, high = d.scale
                places[:, index] = ((np.log(number) if d.log else number) - low) / ((high - low) or 1.0)
        return places

    def _active(self, name: str, places: np.ndarray, known: Mapping[str, np.ndarray]) -> np.ndarray:
        """For which points `name` has its condition met, bool (M,). known: the same of earlier ones."""
        holds = np.ones(len(places), bool)
        for other, values in self.space.search[name].when.items():
            if other not in self.space.search:
                holds &= self.space.fixed.get(other) in values
                continue
            d = self.space.search[other]
            place = places[:, self.names.index(other)]
            if d.choices:
                holds &= np.isin(place, [d.choices.index(value) for value in values if value in d.choices])
            else:
                wanted = [d.to_unit(float(value)) for value in values if d.contains(value)]
                holds &= np.isclose(place[:, None], np.array(wanted), rtol=0, atol=1e-12).any(axis=1)
            holds &= known[other]
        return holds
