"""Who lies next to whom: nearest neighbours in blocks, and the shares in which two sets cover each other.

Owns: `nearest_to`, `nearest_within`, precision, recall, density and coverage. Refuses: images, and
what is made of a neighbour that is too near (`pipeline.metrics.memorization`).

All distances are Euclidean, float64, on the CPU; memory stays bounded whatever the sizes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK = 2000  # rows and columns of a block of pairwise distances: 32 MB


class Manifold(NamedTuple):
    """Shares in [0,1] (density may pass 1) of how the two sets cover one another."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: Tensor, fake: Tensor, *, k: int = 3, k_density: int = 5) -> Manifold:
    """Precision and recall (Kynkaanniemi et al. 2019, k=3), density and coverage (Naeem et al. 2020, k=5).

    Balls reach to a point's k-th neighbour in its own set. Both sets should be of one size.
    """
    k, k_density = (min(wanted, len(real) - 1, len(fake) - 1) for wanted in (k, k_density))
    real_own, fake_own = nearest_within(real, max(k, k_density)), nearest_within(fake, k)
    covered = recalled = torch.zeros(len(real), dtype=torch.bool)
    precise = inside = 0
    for start in range(0, len(fake), _BLOCK):
        block = _distances(fake[start : start + _BLOCK], real)
        precise += int((block <= real_own[:, k - 1]).any(1).sum())
        recalled = recalled | (block <= fake_own[start : start + _BLOCK, k - 1, None]).any(0)
        near = block <= real_own[:, k_density - 1]
        covered = covered | near.any(0)
        inside += int(near.sum())
    precision, density = precise / len(fake), inside / (k_density * len(fake))
    return Manifold(precision, float(recalled.double().mean()), density, float(covered.double().mean()))


def nearest_to(queries: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances (n,k) float64, ascending, and indices (n,k) of each query's k nearest points.

    Both are (n,d) and (m,d) of any number type; whatever n and m, memory stays bounded.
    """
    nearest = []
    for query in torch.split(queries, _BLOCK):
        found, places = torch.zeros(len(query), 0, dtype=torch.float64), torch.zeros(len(query), 0).long()
        for start in range(0, len(points), _BLOCK):
            block = _distances(query, points[start : start + _BLOCK])
            best = block.topk(min(k, block.shape[1]), 1, largest=False)
            found = torch.cat([found, best.values], 1)
            places = torch.cat([places, best.indices + start], 1)
            found, order = found.topk(min(k, found.shape[1]), 1, largest=False)
            places = places.gather(1, order)
        nearest.append((found, places))
    return torch.cat([n[0] for n in nearest]), torch.cat([n[1] for n in nearest])


def nearest_within(points: Tensor, k: int) -> Tensor:
    """Distances (n,k) float64, ascending, of each point's k nearest others."""
    distances, places = nearest_to(points, points, k + 1)
    # Itself is usually the first, but a duplicate may come before it: put it last, wherever it is.
    itself = places == torch.arange(len(points))[:, None]
    return distances.masked_fill(itself, math.inf).sort(1).values[:, :k]


def _distances(queries: Tensor, points: Tensor) -> Tensor:
    """All Euclidean distances (n,m), float64 on the CPU."""
    targets = points.double().cpu()
    origin = targets[:1]  # far from 0, |a|^2 + |b|^2 - 2ab would cancel
    targets, starts = targets - origin, queries.double().cpu() - origin
    squares = starts.square().sum(1, keepdim=True) + targets.square().sum(1)
    return torch.addmm(squares, starts, targets.T, alpha=-2).clamp_(min=0).sqrt_()
