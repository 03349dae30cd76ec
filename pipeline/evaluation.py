"""Everything measured of a finished generator, and whether it may be promoted.

Owns: `measure` and its `Measurement`; the fid's interval; memorisation; collapse; the finalists of a
sweep. Refuses: training, and choosing what becomes of a verdict (`pipeline.registry`).

A low fid is no proof of a good generator: one that copies its training images has the best fid of all.
So copies are looked for (against held-out images, which an honest generator does not approach less than
training images) and so are missing modes and duplicates. The thresholds below were chosen on mnist5k with
planted memorisers (training images and noise), collapsed generators and honest ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline import fid
from pipeline.checkpoint import best_generator
from pipeline.data import Dataset
from pipeline.errors import EvaluatorError
from pipeline.features import Extractor
from pipeline.fid import Evaluator, RealFactor, Statistics
from pipeline.networks import Generator, to_uint8
from pipeline.trial import draw

Sample = Callable[[int, int], tuple[Tensor, Tensor | None]]
"""(n, seed) -> uint8 (n,H,W,C) and the labels int64 (n,) they were asked for, or None."""

REPEATS = 4
"""Independent batches of n behind one fid."""
LOOKED_AT = 5000
"""Most samples whose neighbours are sought: the cost grows with their square."""
CLUSTERS = 20
"""Modes of unlabelled images: k-means clusters of the training reals' features."""

MAX_COPIED = 0.05  # honest generators: 0.00-0.02; planted copies among others: their true share
MAX_DUPLICATES = 0.2  # honest: 0.00; ten images with noise: 1.00; draws from 4,500 images: 0.37
MIN_DIVERSITY = 0.3  # honest: 0.5-1.0; the first ticks of a GAN: 0.13-0.20
MAX_IMBALANCE = 0.45  # honest: 0.03-0.26; one digit of ten: 0.9 by class, 0.54-0.83 by pixel cluster


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is known of a generator from n samples; distances in the evaluator's extractor.

    fid: mean over `repeats` independent batches of n, against the training reals. fid_low, fid_high: 95 %
    of measurements with n other samples lie between them, with 95 % confidence. fid_held: against held-out
    reals (few, so biased upwards; far above fid = overfitted). fid_infinity: extrapolated to endless
    samples. kid, kid_error: unbiased, with its standard error. precision..coverage: see `fid.Manifold`.
    memorisation_auc: P(a sample lies relatively closer to a training image than a held-out image does),
    in pixels; 0.5 = as held-out images do, 1 = copies. copied: share of samples closer than 99 % of
    held-out images, the larger of pixels and features. modes, modes_total: classes (or clusters) seen at
    a tenth of their usual share or more. imbalance: total variation distance between the shares of the
    modes and the reals', 0..1. diversity: mean distance of two samples over that of two reals.
    duplicates: share of samples with a twin among the samples. class_counts: samples per class or
    cluster. label_accuracy: share of samples that look like the label asked for, None where none was.
    """

    n: int
    seed: int
    repeats: int
    extractor: str
    evaluator: str
    fid: float
    fid_low: float
    fid_high: float
    fid_held: float
    fid_infinity: float
    fid_by_class: dict[str, float]
    kid: float
    kid_error: float
    precision: float
    recall: float
    density: float
    coverage: float
    memorisation_auc: float
    copied: float
    memorisation: str
    modes: int
    modes_total: int
    imbalance: float
    diversity: float
    duplicates: float
    class_counts: dict[str, int]
    label_accuracy: float | None
    collapse: str

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Reasons against promotion, one sentence each; empty for an honest generator."""
        reasons = []
        if self.memorisation != "ok":
            reasons.append(
                f"copies: {self.copied:.0%} of the samples lie closer to a training image than 99 % of "
                f"held-out images do (AUC {self.memorisation_auc:.2f})"
            )
        if self.collapse != "ok":
            reasons.append(
                f"collapsed: {self.modes} of {self.modes_total} modes (imbalance {self.imbalance:.2f}), "
                f"{self.duplicates:.0%} duplicates, diversity {self.diversity:.2f} of the reals'"
            )
        return tuple(reasons)

    def to_dict(self) -> dict[str, Any]:
        """Plain values ready for JSON, `verdicts` among them."""
        return {**dataclasses.asdict(self), "verdicts": list(self.verdicts)}


def measure(sample: Sample, dataset: Dataset, evaluator: Evaluator, *, n: int, seed: int) -> Measurement:
    """Measure the generator behind `sample` with `REPEATS` batches of n images; n >= 16.

    The first batch is `sample(n, seed)`; the others have seeds derived from it.

    Raises:
        EvaluatorError: n is too small, the images have another shape than the data's, or their features
            are not finite.
    """
    if n < 16:
        raise EvaluatorError("a measurement needs at least 16 samples", seen=n, fix="the default is 2000")
    train, held = (_extract(evaluator.extractor, split) for split in (dataset.train, dataset.held))
    images, labels, features = _batch(sample, evaluator, n, seed)
    batches = [features, *(_batch(sample, evaluator, n, other)[2] for other in _more_seeds(seed))]
    look = _subset(n, LOOKED_AT, seed)
    reference = _subset(len(train), len(look), seed)
    copies, twins = _copies(images[look], features[look], dataset, train, held)
    real_modes, names = _modes(dataset, train)
    modes = real_modes[twins]
    spread = _Looks(_pixels(images[look]), features[look], modes)
    reals = _Looks(_pixels(_images(dataset.train)[reference]), train[reference], real_modes[reference])
    distance = fid.kid(train, features, seed=seed)
    return Measurement(
        n=n,
        seed=seed,
        repeats=REPEATS,
        extractor=evaluator.extractor_name,
        evaluator=dataclasses.replace(evaluator, samples=n).hash,
        **_fids(evaluator.real, RealFactor.of(Statistics.of(held)), batches),
        fid_infinity=fid.frechet_infinity(evaluator.real, features, seed=seed),
        fid_by_class=_by_class(train, real_modes, features[look], modes, names) if dataset.labelled else {},
        kid=distance.value,
        kid_error=distance.error,
        **fid.manifold(train[reference], features[look][: len(reference)])._asdict(),
        **copies,
        **_collapse(spread, reals, names),
        label_accuracy=None if labels is None else float((labels.cpu()[look] == modes).double().mean()),
    )


@dataclass(frozen=True)
class Final:
    """A finalist of a sweep: its trial's number, what was measured, and the generator itself."""

    trial: int
    measurement: Measurement
    generator: Generator


def finalists(
    folders: Mapping[int, Path], dataset: Dataset, evaluator: Evaluator, *, seed: int = 0
) -> list[Final]:
    """Measure the best generators of these trials with fresh latents; the best comes first.

    Those with verdicts against them come after all others; among equals the lower fid is better.

    Raises:
        CheckpointError: a trial has no sound best generator.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    placed = evaluator.to(device)
    finals = []
    for trial, folder in folders.items():
        generator, _ = best_generator(folder)
        sample = sampler(generator.to(device), dataset)
        measured = measure(sample, dataset, placed, n=evaluator.samples, seed=seed)
        finals.append(Final(trial, measured, generator.cpu()))
    return sorted(finals, key=lambda final: (bool(final.measurement.verdicts), final.measurement.fid))


def sampler(generator: Generator, dataset: Dataset) -> Sample:
    """What `measure` wants, of a generator: latents from the seed, labels as frequent as the data's."""
    device = next(generator.parameters()).device
    known = None if dataset.train_labels is None else torch.from_numpy(dataset.train_labels).to(device)

    @torch.inference_mode()
    def sample(n: int, seed: int) -> tuple[Tensor, Tensor | None]:
        images, labels = draw(generator, n, torch.Generator(device).manual_seed(seed), known)
        return to_uint8(images), labels

    return sample


def from_arrays(draw_arrays: Callable[[int, int], tuple[np.ndarray, np.ndarray | None]]) -> Sample:
    """What `measure` wants, of a function that gives the same as NumPy arrays (a registered generator)."""

    def sample(n: int, seed: int) -> tuple[Tensor, Tensor | None]:
        images, labels = draw_arrays(n, seed)
        return torch.from_numpy(images), None if labels is None else torch.from_numpy(labels)

    return sample


# ---- the fid and its interval


def _fids(real: RealFactor, held: RealFactor, batches: Sequence[Tensor]) -> dict[str, Any]:
    """The mean fid and the interval in which other measurements of the same size lie.

    Not a bootstrap: resampling with replacement counts some samples twice, which reads as less variety
    and inflates the distance itself (1.1 becomes 2.0 at n = 500 in 64 dimensions). Centred on the mean of
    K independent batches; as wide as the influence function's standard deviation s says. A normal
    tolerance interval, mean +- s (1.64 + 1.96/sqrt(K)): a prediction interval covers 95 % on average, and
    much less whenever the mean happens to lie off; this one covers it in 95 of 100 such cases.
    """
    centre = float(np.mean([fid.frechet_of(real, batch) for batch in batches]))
    deviation = math.sqrt(np.mean([frechet_deviation(real, batch) ** 2 for batch in batches]))
    half = deviation * (1.645 + 1.96 / math.sqrt(len(batches)))
    against_held = float(np.mean([fid.frechet_of(held, batch) for batch in batches]))
    return {
        "fid": centre,
        "fid_low": max(0.0, centre - half),
        "fid_high": centre + half,
        "fid_held": against_held,
    }


def frechet_deviation(real: RealFactor, features: Tensor) -> float:
    """Standard deviation of the Frechet distance over draws of n samples, from one draw float (n,d).

    By the influence function (the infinitesimal jackknife, Efron 1982): with m, S of the sample and T the
    optimal transport from the sample to the reals, a sample x moves the distance by
    (2 (m - m1)'(x - m) + (x - m)'(I - T)(x - m)) / n. Right to a few per cent where the distance is well
    above 0, and up to twice too wide where the samples are the reals.
    """
    vectors = features.double().cpu()
    n, mean = len(vectors), vectors.mean(0)
    centred = vectors - mean
    projected = centred @ real.root
    values, axes = torch.linalg.eigh(projected.T @ projected / (n - 1))
    kept = values > 1e-10 * values[-1]
    kept[: -(n - 1)] = False  # n vectors span n - 1 directions, the others are rounding
    transported = (projected @ axes[:, kept]).square() @ values[kept].rsqrt()
    moved = 2 * centred @ (mean - real.mean) + centred.square().sum(1) - transported
    return float(moved.std() / math.sqrt(n))


def _by_class(
    real: Tensor, real_modes: Tensor, features: Tensor, modes: Tensor, names: Sequence[str]
) -> dict[str, float]:
    found = fid.frechet_by_class(real, real_modes, features, modes)
    return {names[mode]: distance for mode, distance in found.items()}


# ---- memorisation


def _copies(
    images: Tensor, features: Tensor, dataset: Dataset, train: Tensor, held: Tensor
) -> tuple[dict[str, Any], Tensor]:
    """The memorisation fields, and the index of each sample's nearest training image by features.

    What is compared is the distance to the nearest training image over that to the third nearest. The
    plain distance would call every smooth generator a copier: blur brings an image closer to all others.
    Copies are seen through noise and mild blur; shifted or turned copies are not.
    """
    few = _subset(len(held), LOOKED_AT, 0)
    pixels = [_pixels(i) for i in (images, _images(dataset.held)[few], _images(dataset.train))]
    shares, aucs, twins = [], [], torch.empty(0)
    for samples, others, reals in (pixels, (features, held[few], train)):
        near, places = fid.nearest_to(samples, reals, 3)
        far, _ = fid.nearest_to(others, reals, 3)
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
class _Looks:
    """One set as the search for a collapse sees it: shrunk pixels, features, mode of each image."""

    pixels: Tensor
    features: Tensor
    modes: Tensor


def _collapse(samples: _Looks, reals: _Looks, names: Sequence[str]) -> dict[str, Any]:
    counts = torch.bincount(samples.modes, minlength=len(names))
    usual = torch.bincount(reals.modes, minlength=len(names))
    expected = usual.double() / len(reals.modes) * len(samples.modes)
    covered = int(((counts >= 0.1 * expected) & (counts > 0)).sum())
    diversity = _mean_distance(samples.features) / max(_mean_distance(reals.features), 1e-12)
    # Half of a distance that one real in a hundred has to its nearest: closer than that is a twin.
    twin = fid.nearest_within(reals.pixels, 1).quantile(0.01) / 2
    duplicates = float((fid.nearest_within(samples.pixels, 1) <= twin).double().mean())
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


def _modes(dataset: Dataset, train: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The mode of every training image, int64 (N,), and the modes' names: classes, else clusters."""
    if dataset.train_labels is not None:
        return torch.from_numpy(dataset.train_labels), dataset.classes
    count = max(2, min(CLUSTERS, len(train) // 10))
    return _clusters(train.double().cpu(), count), tuple(f"cluster {i}" for i in range(count))


def _clusters(points: Tensor, count: int, rounds: int = 20) -> Tensor:
    """Cluster (N,d) by k-means (seeded k-means++ start, Arthur and Vassilvitskii 2007): int64 (N,)."""
    rng = torch.Generator().manual_seed(0)
    centres = points[:1]
    for _ in range(count - 1):
        weights = fid.nearest_to(points, centres, 1)[0][:, 0].square() + 1e-12
        centres = torch.cat([centres, points[torch.multinomial(weights, 1, generator=rng)]])
    nearest = torch.zeros(len(points), dtype=torch.int64)
    for _ in range(rounds):
        nearest = fid.nearest_to(points, centres, 1)[1][:, 0]
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return nearest


# ---- images, features, seeds


def _batch(sample: Sample, evaluator: Evaluator, n: int, seed: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Images, labels and finite features of one batch, on the CPU."""
    images, labels = sample(n, seed)
    evaluator.check(images)
    features = evaluator.extractor(images).cpu()
    if not features.isfinite().all():
        raise EvaluatorError(
            "the features of generated images are finite",
            seen=f"{int((~features.isfinite()).any(1).sum())} of {n} that are not",
            fix="choose another extractor, or another generator",
        )
    return images.cpu(), labels, features


def _extract(extractor: Extractor, images: np.ndarray) -> Tensor:
    return torch.cat([extractor(block).cpu() for block in torch.split(_images(images), fid.BATCH)])


def _images(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images)


def _pixels(images: Tensor) -> Tensor:
    """uint8 (N,H,W,C) as uint8 vectors, shrunk where neighbours would be dear to find."""
    side = 32 if images.shape[3] == 1 else 16
    if images.shape[1] <= side:
        return images.flatten(1)
    blocks = [block.permute(0, 3, 1, 2).float() for block in torch.split(images, fid.BATCH)]
    return torch.cat([F.adaptive_avg_pool2d(b, side).round().to(torch.uint8).flatten(1) for b in blocks])


def _subset(count: int, wanted: int, seed: int) -> Tensor:
    """Sorted indices of at most `wanted` of `count`, drawn without replacement."""
    rng = np.random.default_rng([seed, 1])
    return torch.from_numpy(np.sort(rng.permutation(count)[:wanted]))


def _more_seeds(seed: int) -> list[int]:
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(REPEATS - 1)]
