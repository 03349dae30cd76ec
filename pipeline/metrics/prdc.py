"""Nearest neighbours of feature vectors; precision, recall, density and coverage from them.

All distances are Euclidean, float64, on the CPU, computed in blocks so that memory stays bounded.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 2000  # rows and columns of a block of pairwise distances: 32 MB


class Manifold(NamedTuple):
    """How far real and generated features cover each other: fractions in [0, 1]; density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: Tensor, fake: Tensor, *, k: int = 3, k_density: int = 5) -> Manifold:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

    real, fake: features float (n,d) and (m,d); n and m should be equal. A ball around a point reaches to its
    k-th nearest neighbour in the same set; for density and coverage to the `k_density`-th.
    """
    k, k_density = (min(wanted, len(real) - 1, len(fake) - 1) for wanted in (k, k_density))
    real_radii, fake_radii = nearest_within(real, max(k, k_density)), nearest_within(fake, k)
    covered = recalled = torch.zeros(len(real), dtype=torch.bool)
    precise = inside = 0
    for start in range(0, len(fake), _BLOCK):
        block = _distances(fake[start : start + _BLOCK], real)
        precise += int((block <= real_radii[:, k - 1]).any(1).sum())
        recalled = recalled | (block <= fake_radii[start : start + _BLOCK, k - 1, None]).any(0)
        near = block <= real_radii[:, k_density - 1]
        covered = covered | near.any(0)
        inside += int(near.sum())
    precision, density = precise / len(fake), inside / (k_density * len(fake))
    return Manifold(precision, float(recalled.double().mean()), density, float(covered.double().mean()))


def nearest_to(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances float64 (n,k), ascending, and indices int64 (n,k) of the k nearest points of each query.

    queries, points: (n,d) and (m,d) of any number type. k: at most m.
    """
    nearest = []
    for query in torch.split(queries, _BLOCK):
        found, indices = torch.zeros(len(query), 0, dtype=torch.float64), torch.zeros(len(query), 0).long()
        for start in range(0, len(points), _BLOCK):
            block = _distances(query, points[start : start + _BLOCK])
            best = block.topk(min(k, block.shape[1]), 1, largest=False)
            found = torch.cat([found, best.values], 1)
            indices = torch.cat([indices, best.indices + start], 1)
            found, order = found.topk(min(k, found.shape[1]), 1, largest=False)
            indices = indices.gather(1, order)
        nearest.append((found, indices))
    return torch.cat([n[0] for n in nearest]), torch.cat([n[1] for n in nearest])


def nearest_within(points: Tensor, k: int, rows: Tensor | None = None) -> Tensor:
    """Distances float64 (n,k), ascending, of points (m,d) to their k nearest other points.

    rows: int64 (n,), of which points; None = of all.
    """
    rows = torch.arange(len(points)) if rows is None else rows
    distances, indices = nearest_to(points[rows], points, k + 1)
    # The point itself is usually the first, but a duplicate may precede it: move it to the end.
    itself = indices == rows[:, None]
    return distances.masked_fill(itself, math.inf).sort(1).values[:, :k]


def _distances(queries: Tensor, points: Tensor) -> Tensor:
    """All Euclidean distances (n,m), float64 on the CPU."""
    targets = points.double().cpu()
    origin = targets[:1]  # far from 0, |a|^2 + |b|^2 - 2ab would cancel
    targets, starts = targets - origin, queries.double().cpu() - origin
    squares = starts.square().sum(1, keepdim=True) + targets.square().sum(1)
    return torch.addmm(squares, starts, targets.T, alpha=-2).clamp_(min=0).sqrt_()
