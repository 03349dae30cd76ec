"""Points of a space as vectors, many at a time.

A point has two forms here. Its genes (P,): of each parameter, where a number lies in its range (0..1, on the
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
    """Genes and vectors of the points of a space; P is the number of its searched parameters."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.names = list(space.search)
        self.columns: dict[str, slice] = {}
        self.width = 0
        for name, d in space.search.items():
            self.columns[name] = slice(self.width, self.width + (len(d.choices) or 1))
            self.width = self.columns[name].stop

    def genes(self, params: Mapping[str, Any]) -> np.ndarray:
        """float64 (P,)."""
        found = np.full(len(self.names), np.nan)
        for index, (name, d) in enumerate(self.space.search.items()):
            if name in params:
                found[index] = d.choices.index(params[name]) if d.choices else d.to_unit(params[name])
        return found

    def params(self, genes: np.ndarray) -> Params:
        """The values of the parameters whose condition holds. genes: (P,) without NaN."""
        found: Params = {}
        for gene, (name, d) in zip(genes, self.space.search.items(), strict=True):
            if self.space.active(name, found):
                found[name] = d.choices[int(gene)] if d.choices else d.from_unit(float(gene))
        return found

    def vectors(self, genes: np.ndarray) -> np.ndarray:
        """float64 (M, width) of genes (M, P)."""
        found = np.zeros((len(genes), self.width))
        active: dict[str, np.ndarray] = {}
        for index, (name, d) in enumerate(self.space.search.items()):
            active[name] = self._active(name, genes, active)
            gene, column = genes[:, index], self.columns[name]
            if d.choices:
                hot = np.arange(len(d.choices)) == np.nan_to_num(gene, nan=-1.0)[:, None]
                found[:, column] = hot & active[name][:, None]
            else:
                found[:, column.start] = np.where(active[name] & ~np.isnan(gene), gene, 0.5)
        return found

    def vector(self, params: Mapping[str, Any]) -> np.ndarray:
        """float64 (width,)."""
        found: np.ndarray = self.vectors(self.genes(params)[None])[0]
        return found

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Genes (count, P) of random points."""
        found = rng.random((count, len(self.names)))
        for index, d in enumerate(self.space.search.values()):
            if d.choices:
                found[:, index] = np.floor(found[:, index] * len(d.choices))
        return self._whole(found)

    def _whole(self, genes: np.ndarray) -> np.ndarray:
        """The same with the genes of integers where an integer lies."""
        for index, d in enumerate(self.space.search.values()):
            if d.whole:
                low, high = d.scale
                number = low + genes[:, index] * (high - low)
                number = np.round(np.exp(number) if d.log else number).clip(d.low, d.high)
                genes[:, index] = ((np.log(number) if d.log else number) - low) / ((high - low) or 1.0)
        return genes

    def _active(self, name: str, genes: np.ndarray, known: Mapping[str, np.ndarray]) -> np.ndarray:
        """For which points `name` has its condition met, bool (M,). known: the same of earlier ones."""
        holds = np.ones(len(genes), bool)
        for other, values in self.space.search[name].when.items():
            if other not in self.space.search:
                holds &= self.space.fixed.get(other) in values
                continue
            d = self.space.search[other]
            gene = genes[:, self.names.index(other)]
            if d.choices:
                holds &= np.isin(gene, [d.choices.index(value) for value in values if value in d.choices])
            else:
                wanted = [d.to_unit(float(value)) for value in values]
                holds &= np.isclose(gene[:, None], wanted, atol=1e-9).any(axis=1)
            holds &= known[other]
        return holds
