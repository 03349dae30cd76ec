"""Memorization and mode collapse: does a generator copy its training images, or draw only a few?

A low fid is no proof of a good generator: one that copies its training images has the best fid of all. A
generator that does not memorize comes as close to held-out images as to training images, so the two are
compared. The limits below were chosen on mnist5k with planted memorizers (training images plus noise),
collapsed generators and normally trained ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.metrics.prdc import nearest_to, nearest_within
from pipeline.metrics.statistics import BATCH

MAX_COMPARED = 5000
"""Most samples whose neighbours are searched: the cost grows with their square."""
CLUSTERS = 20
"""Modes of unlabelled images: k-means clusters of the features of the training images."""

MAX_COPIED = 0.05  # normal: 0.00-0.02; blends of two training images: 0.3; planted copies: their fraction
MAX_DUPLICATES = 0.2  # normal: 0.00; ten images with noise: 1.00; 1,000 draws of 2,250 images: 0.37
MIN_DIVERSITY = 0.3  # normal: 0.5-1.0; the first ticks of a GAN: 0.13-0.20
MAX_IMBALANCE = 0.45  # normal: 0.02-0.25; one digit of ten: 0.9 by class, 0.54-0.83 by pixel cluster


class Copies(NamedTuple):
    """Fields of a `Measurement`; memorisation: `copies` or `ok`."""

    memorisation_auc: float
    copied: float
    memorisation: str


def find_copies(
    images: Tensor, features: Tensor, dataset: Dataset, train: Tensor, held: Tensor
) -> tuple[Copies, Tensor]:
    """Compare the distances to training images of generated and of held-out images, in pixels and features.

    Compared is the ratio of the distance to the nearest training image to that of the third nearest. The
    plain distance would call every smooth generator a memorizer: blur brings an image closer to all others.
    Copies with noise or mild blur are found; shifted, rotated or mirrored copies are not. Of training images
    that are copies of one another one counts: else a sample of theirs would be as near to the third as to the
    first. Where held-out images are copies of training images, these take their place, each compared with the
    others.

    images, features: the samples uint8 (n,H,W,C) and their features float (n,d). train, held: features
    float (N,d) and (M,d) of the two splits of `dataset`. Returns the AUC in pixels, the larger of both
    fractions and the verdict; and the index int64 (n,) of the training image nearest to each sample by
    features.
    """
    different, apart = torch.from_numpy(dataset.different), dataset.understood.across == 0
    few = random_subset(len(held if apart else different), MAX_COMPARED, 0)
    held_images, train_images = (torch.from_numpy(part) for part in (dataset.held, dataset.train))
    pixels = [pixel_vectors(images), pixel_vectors(held_images), pixel_vectors(train_images)]
    fractions, aucs, nearest = [], [], torch.empty(0)
    for samples, others, reals in (pixels, (features, held, train)):
        if len(different) < len(reals):
            reals = reals[different]
        sample_distances, indices = nearest_to(samples, reals, 3)
        held_distances = nearest_to(others[few], reals, 3)[0] if apart else nearest_within(reals, 3, few)
        sample_ratios, held_ratios = _distance_ratio(sample_distances), _distance_ratio(held_distances)
        fractions.append(float((sample_ratios < held_ratios.quantile(0.01)).double().mean()))
        aucs.append(_auc(sample_ratios, held_ratios))
        nearest = different[indices[:, 0]]
    # A quantile of few held-out images is itself uncertain: of m, the lowest lies at about 1/m.
    memorized = max(fractions) > MAX_COPIED + 2 / len(few)
    return Copies(aucs[0], max(fractions), "copies" if memorized else "ok"), nearest


def _distance_ratio(nearest: Tensor) -> Tensor:
    """First over third of the nearest distances (n,3); 1 where all are 0: no copy of one image."""
    first, third = nearest[:, 0], nearest[:, -1]
    return torch.where(third > 0, first / third.clamp(min=1e-300), 1.0)


def _auc(low: Tensor, high: Tensor) -> float:
    """P(a < b) + P(a = b)/2 for a from `low` and b from `high`, float (n,) and (m,)."""
    from sklearn.metrics import roc_auc_score  # half a second

    return float(roc_auc_score(np.repeat([0, 1], [len(low), len(high)]), torch.cat([low, high]).numpy()))


# ---- mode collapse


class CollapseProbe(NamedTuple):
    """One set of images for `find_collapse`.

    pixels: uint8 (n,p) from `pixel_vectors`. features: float (n,d). modes: int64 (n,), from `find_modes`.
    """

    pixels: Tensor
    features: Tensor
    modes: Tensor


class Collapse(NamedTuple):
    """Fields of a `Measurement`; collapse: `collapsed` or `ok`."""

    modes: int
    modes_total: int
    imbalance: float
    diversity: float
    duplicates: float
    class_counts: dict[str, int]
    collapse: str


def find_collapse(samples: CollapseProbe, reals: CollapseProbe, names: Sequence[str]) -> Collapse:
    """Samples compared with as many reals.

    names: of the modes. The verdict `collapse` is `collapsed` for too few modes, duplicates or low diversity.
    """
    counts = torch.bincount(samples.modes, minlength=len(names))
    real_counts = torch.bincount(reals.modes, minlength=len(names))
    expected = real_counts.double() / len(reals.modes) * len(samples.modes)
    covered = int(((counts >= 0.1 * expected) & (counts > 0)).sum())
    diversity = _mean_distance(samples.features) / max(_mean_distance(reals.features), 1e-12)
    # A duplicate is closer than half the distance below which 1 % of the reals have their nearest neighbour.
    threshold = nearest_within(reals.pixels, 1).quantile(0.01) / 2
    duplicates = float((nearest_within(samples.pixels, 1) <= threshold).double().mean())
    imbalance = float((counts - expected).abs().sum() / (2 * len(samples.modes)))
    by_chance = math.sqrt(len(names) / (2 * math.pi * len(samples.modes)))  # of a fair draw this small
    imbalanced = imbalance > MAX_IMBALANCE + by_chance
    collapsed = imbalanced or duplicates > MAX_DUPLICATES or diversity < MIN_DIVERSITY
    return Collapse(
        modes=covered,
        modes_total=len(names),
        imbalance=imbalance,
        diversity=diversity,
        duplicates=duplicates,
        class_counts=dict(zip(names, counts.tolist(), strict=True)),
        collapse="collapsed" if collapsed else "ok",
    )


def _mean_distance(features: Tensor) -> float:
    """Mean distance between features (n,d), each paired with eight others."""
    vectors = features.double()
    shifts = [len(vectors) * i // 9 for i in range(1, 9)]
    return float(np.mean([float((vectors - vectors.roll(s, 0)).norm(dim=1).mean()) for s in shifts]))


def find_modes(dataset: Dataset, train: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The mode int64 (N,) of every training image and the names of the modes: the classes, else clusters.

    train: features float (N,d) of the training images; used where these have no labels.
    """
    if dataset.train_labels is not None:
        return torch.from_numpy(dataset.train_labels), dataset.classes
    count = max(2, min(CLUSTERS, len(train) // 10))
    return k_means(train.double().cpu(), count), tuple(f"cluster {i}" for i in range(count))


def k_means(points: Tensor, count: int) -> Tensor:
    """Cluster index int64 (N,) of points (N,d)."""
    from sklearn.cluster import KMeans  # half a second

    found = KMeans(count, n_init=1, max_iter=20, random_state=0).fit_predict(points.numpy())
    return torch.from_numpy(found).long()


# ---- pixels and subsets


def pixel_vectors(images: Tensor) -> Tensor:
    """Images uint8 (N,H,W,C) as uint8 vectors; larger ones are shrunk to 32x32 (grey) or 16x16 (colour)."""
    side = 32 if images.shape[3] == 1 else 16
    if images.shape[1] <= side:
        return images.flatten(1)
    blocks = (block.permute(0, 3, 1, 2).float() for block in torch.split(images, BATCH))  # one at a time
    return torch.cat([F.adaptive_avg_pool2d(b, side).round().to(torch.uint8).flatten(1) for b in blocks])


def random_subset(count: int, most: int, seed: int) -> Tensor:
    """Sorted indices int64 of at most `most` of `count` items, drawn without replacement."""
    rng = np.random.default_rng([seed, 1])
    return torch.from_numpy(np.sort(rng.permutation(count)[:most]))
