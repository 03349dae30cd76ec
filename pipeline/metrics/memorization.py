"""Whether a generator copies its training images, or draws the same few again and again.

Owns: `copies` (memorisation), `collapse`, the modes of a data set, the limits of both verdicts. Refuses:
distances between distributions (`pipeline.metrics.frechet`), and what becomes of a verdict (`pipeline.tracking.registry`).

A low fid is no proof of a good generator: one that copies its training images has the best fid of all.
So copies are looked for (against held-out images, which an honest generator does not approach less than
training images) and so are missing modes and duplicates. The limits below were chosen on mnist5k with
planted memorisers (training images and noise), collapsed generators and honest ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.metrics.prdc import nearest_to, nearest_within
from pipeline.metrics.statistics import BATCH

LOOKED_AT = 5000
"""Most samples whose neighbours are sought: the cost grows with their square."""
CLUSTERS = 20
"""Modes of unlabelled images: k-means clusters of the training reals' features."""

MAX_COPIED = 0.05  # honest: 0.00-0.02; blends of two training images: 0.3; planted copies: their share
MAX_DUPLICATES = 0.2  # honest: 0.00; ten images with noise: 1.00; 1,000 draws of 2,250 images: 0.37
MIN_DIVERSITY = 0.3  # honest: 0.5-1.0; the first ticks of a GAN: 0.13-0.20
MAX_IMBALANCE = 0.45  # honest: 0.02-0.25; one digit of ten: 0.9 by class, 0.54-0.83 by pixel cluster


def find_copies(
    images: Tensor, features: Tensor, dataset: Dataset, train: Tensor, held: Tensor
) -> tuple[dict[str, Any], Tensor]:
    """The memorisation fields, and the index of each sample's nearest training image by features.

    What is compared is the distance to the nearest training image over that to the third nearest. The
    plain distance would call every smooth generator a copier: blur brings an image closer to all others.
    Copies are seen through noise and mild blur; shifted or turned copies are not.
    """
    few = subset(len(held), LOOKED_AT, 0)
    pixels = [pixels_of(i) for i in (images, as_tensor(dataset.held)[few], as_tensor(dataset.train))]
    shares, aucs, twins = [], [], torch.empty(0)
    for samples, others, reals in (pixels, (features, held[few], train)):
        near, places = nearest_to(samples, reals, 3)
        far, _ = nearest_to(others, reals, 3)
        closeness, usual = _ratio(near), _ratio(far)
        shares.append(float((closeness < usual.quantile(0.01)).double().mean()))
        aucs.append(_auc(closeness, usual))
        twins = places[:, 0]
    # A quantile of few held-out images is itself uncertain: of m, the lowest lies at about 1/m.
    found = max(shares) > MAX_COPIED + 2 / len(few)
    fields = {"memorisation_auc": aucs[0], "copied": max(shares), "memorisation": "copies" if found else "ok"}
    return fields, twins


def _ratio(nearest: Tensor) -> Tensor:
    first, third = nearest[:, 0], nearest[:, -1]
    return torch.where(third > 0, first / third.clamp(min=1e-300), 1.0)  # all three alike: no one's copy


def _auc(low: Tensor, high: Tensor) -> float:
    """P(a < b) + P(a = b)/2 of a from `low`, b from `high`."""
    ordered = high.sort().values
    below = torch.searchsorted(ordered, low.contiguous(), right=True)
    at_most = torch.searchsorted(ordered, low.contiguous())
    return 1 - float((below + at_most).double().mean()) / (2 * len(high))


# ---- collapse


@dataclass(frozen=True)
class CollapseProbe:
    """One set as the search for a collapse sees it: shrunk pixels, features, mode of each image."""

    pixels: Tensor
    features: Tensor
    modes: Tensor


def find_collapse(samples: CollapseProbe, reals: CollapseProbe, names: Sequence[str]) -> dict[str, Any]:
    counts = torch.bincount(samples.modes, minlength=len(names))
    usual = torch.bincount(reals.modes, minlength=len(names))
    expected = usual.double() / len(reals.modes) * len(samples.modes)
    covered = int(((counts >= 0.1 * expected) & (counts > 0)).sum())
    diversity = _mean_distance(samples.features) / max(_mean_distance(reals.features), 1e-12)
    # Half of a distance that one real in a hundred has to its nearest: closer than that is a twin.
    twin = nearest_within(reals.pixels, 1).quantile(0.01) / 2
    duplicates = float((nearest_within(samples.pixels, 1) <= twin).double().mean())
    imbalance = float((counts - expected).abs().sum() / (2 * len(samples.modes)))
    by_chance = math.sqrt(len(names) / (2 * math.pi * len(samples.modes)))  # of an honest draw this small
    lopsided = imbalance > MAX_IMBALANCE + by_chance
    collapsed = lopsided or duplicates > MAX_DUPLICATES or diversity < MIN_DIVERSITY
    return {
        "modes": covered,
        "modes_total": len(names),
        "imbalance": imbalance,
        "diversity": diversity,
        "duplicates": duplicates,
        "class_counts": dict(zip(names, counts.tolist(), strict=True)),
        "collapse": "collapsed" if collapsed else "ok",
    }


def _mean_distance(features: Tensor) -> float:
    """Mean distance of pairs, each vector paired with eight others."""
    vectors = features.double()
    steps = [len(vectors) * i // 9 for i in range(1, 9)]
    return float(np.mean([float((vectors - vectors.roll(s, 0)).norm(dim=1).mean()) for s in steps]))


def find_modes(dataset: Dataset, train: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The mode of every training image, int64 (N,), and the modes' names: classes, else clusters."""
    if dataset.train_labels is not None:
        return torch.from_numpy(dataset.train_labels), dataset.classes
    count = max(2, min(CLUSTERS, len(train) // 10))
    return clusters(train.double().cpu(), count), tuple(f"cluster {i}" for i in range(count))


def clusters(points: Tensor, count: int, rounds: int = 20) -> Tensor:
    """Cluster (N,d) by k-means (seeded k-means++ start, Arthur and Vassilvitskii 2007): int64 (N,)."""
    rng = torch.Generator().manual_seed(0)
    centres = points[:1]
    for _ in range(count - 1):
        weights = nearest_to(points, centres, 1)[0][:, 0].square() + 1e-12
        centres = torch.cat([centres, points[torch.multinomial(weights, 1, generator=rng)]])
    nearest = torch.zeros(len(points), dtype=torch.int64)
    for _ in range(rounds):
        nearest = nearest_to(points, centres, 1)[1][:, 0]
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return nearest


# ---- images and parts of them


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images)


def pixels_of(images: Tensor) -> Tensor:
    """uint8 (N,H,W,C) as uint8 vectors, shrunk where neighbours would be dear to find."""
    side = 32 if images.shape[3] == 1 else 16
    if images.shape[1] <= side:
        return images.flatten(1)
    blocks = [block.permute(0, 3, 1, 2).float() for block in torch.split(images, BATCH)]
    return torch.cat([F.adaptive_avg_pool2d(b, side).round().to(torch.uint8).flatten(1) for b in blocks])


def subset(count: int, wanted: int, seed: int) -> Tensor:
    """Sorted indices of at most `wanted` of `count`, drawn without replacement."""
    rng = np.random.default_rng([seed, 1])
    return torch.from_numpy(np.sort(rng.permutation(count)[:wanted]))
