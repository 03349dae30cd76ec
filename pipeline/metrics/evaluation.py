"""The full evaluation of a trained generator: all metrics, an interval for its fid, and verdicts.

Responsible for `measure_generator` and its `Measurement`; not for the finalists of a sweep
(`pipeline.training.finalists`) or what follows from a verdict (`pipeline.tracking.registry`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics import frechet, memorization
from pipeline.metrics.extractors import Extractor
from pipeline.metrics.frechet import Evaluator, RealFactor
from pipeline.metrics.memorization import pixel_vectors, random_subset
from pipeline.metrics.prdc import manifold
from pipeline.metrics.statistics import BATCH, FeatureStatistics

Sample = Callable[[int, int], tuple[Tensor, Tensor | None]]
"""(n, seed) -> images uint8 (n,H,W,C) and the labels int64 (n,) they were generated for, or None."""

REPEATS = 4
"""Independent batches of n samples whose fids are averaged."""
MIN_SAMPLES = 16
"""Fewest samples of a measurement."""

METRIC_DESCRIPTIONS: dict[str, str] = {
    "fid": "0 and up, lower is better: Frechet distance to the training reals, at this n and evaluator only",
    "fid_low": "lower end of the interval: 95 % of measurements with n other samples lie in it (95 % sure)",
    "fid_high": "upper end of the interval",
    "fid_infinity": "fid extrapolated to infinitely many samples; may be below 0",
    "fid_held": "fid of n_held samples to as many held-out reals: compare with fid_even",
    "fid_even": "fid of the same samples to as many training reals: far below fid_held = overfitted",
    "n_held": "samples and reals behind fid_held, fid_even and kid_held: never more than are held out",
    "fid_by_class": "fid within each class, few samples each: compare classes of one measurement only",
    "kid": "about 0 and up, lower is better: unbiased squared MMD, any n; may be below 0",
    "kid_error": "standard error of kid",
    "kid_held": "kid to the held-out reals: far above kid = overfitted",
    "kid_held_error": "standard error of kid_held",
    "precision": "0..1, higher is better: samples that lie among the reals",
    "recall": "0..1, higher is better: reals that lie among the samples",
    "density": "0 and up, 1 = as the reals: how thickly reals surround a sample",
    "coverage": "0..1, higher is better: reals with a sample nearby",
    "memorisation_auc": "0.5 = as held-out images, 1 = copies: how much closer to training images, in pixels",
    "copied": "0..1, lower is better: samples closer to a training image than 99 % of held-out ones",
    "modes": "classes (else clusters) with at least a tenth of their frequency in the reals",
    "modes_total": "number of modes in the training images",
    "imbalance": "0..1, lower is better: total variation between the mode frequencies of samples and reals",
    "diversity": "1 = as the reals, 0 = all the same: mean distance of two samples over that of two reals",
    "duplicates": "0..1, lower is better: samples that nearly equal another sample",
    "class_counts": "samples per class or cluster",
    "label_accuracy": "0..1, higher is better: samples classified as the label they were generated for",
}
"""Range, direction and meaning of the fields of a `Measurement`."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The metrics of a generator (see `METRIC_DESCRIPTIONS`); distances use the features of `extractor`.

    fid is the mean over `repeats` independent batches of n samples. notes: caveats about these numbers.
    """

    n: int
    seed: int
    repeats: int
    extractor: str
    evaluator: str
    fid: float
    fid_low: float
    fid_high: float
    fid_infinity: float
    fid_held: float
    fid_even: float
    n_held: int
    fid_by_class: dict[str, float]
    kid: float
    kid_error: float
    kid_held: float
    kid_held_error: float
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
    notes: tuple[str, ...]

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Reasons against promotion, one sentence each; empty without memorization or mode collapse."""
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
        """The fields and `verdicts` as JSON values."""
        return {**dataclasses.asdict(self), "notes": list(self.notes), "verdicts": list(self.verdicts)}


def measure_generator(
    sample: Sample, dataset: Dataset, evaluator: Evaluator, *, n: int, seed: int, repeats: int = REPEATS
) -> Measurement:
    """Measure the generator behind `sample` with `repeats` batches of n images.

    Args:
        sample: makes images; the first batch is `sample(n, seed)`, the others have seeds derived from `seed`.
        dataset: the training and held-out images to compare with.
        evaluator: the extractor and statistics of `dataset`; its number of samples is replaced by n.
        n: at least 16. repeats: at least 1.

    Raises:
        EvaluatorError: n is too small, the images are not of the data's shape, or their features are not
            finite.
    """
    if n < MIN_SAMPLES:
        raise EvaluatorError(
            "{seen} samples are too few",
            rule=f"a measurement needs at least {MIN_SAMPLES}",
            seen=n,
            fix="the default is 5000",
        )
    evaluator = dataclasses.replace(evaluator, samples=n)
    train, held = (_extract(evaluator.extractor, split) for split in (dataset.train, dataset.held))
    images, labels, features = _batch(sample, evaluator, n, seed)
    fids = _FidInterval(evaluator.real, train, held, n)
    fids.add(features)
    for other_seed in _more_seeds(seed, repeats):
        fids.add(_batch(sample, evaluator, n, other_seed)[2])  # one at a time: they may be large
    few = random_subset(n, memorization.MAX_COMPARED, seed)
    reference = random_subset(len(train), len(few), seed)
    copies, nearest = memorization.find_copies(images[few], features[few], dataset, train, held)
    real_modes, names = memorization.find_modes(dataset, train)
    modes = real_modes[nearest]
    samples = memorization.CollapseProbe(pixel_vectors(images[few]), features[few], modes)
    real_pixels = pixel_vectors(torch.from_numpy(dataset.train)[reference])
    reals = memorization.CollapseProbe(real_pixels, train[reference], real_modes[reference])
    return Measurement(
        n=n,
        seed=seed,
        repeats=repeats,
        extractor=evaluator.extractor_name,
        evaluator=evaluator.hash,
        **fids.read(),
        **_kids(train, held, features, seed),
        fid_infinity=frechet.frechet_infinity(evaluator.real, features, seed=seed),
        fid_by_class=_by_class(train, real_modes, features[few], modes, names) if dataset.labelled else {},
        **manifold(train[reference], features[few][: len(reference)])._asdict(),
        **copies,
        **memorization.find_collapse(samples, reals, names),
        label_accuracy=None if labels is None else float((labels.cpu()[few] == modes).double().mean()),
        notes=_notes(evaluator, len(held)),
    )


def _notes(evaluator: Evaluator, held: int) -> tuple[str, ...]:
    few_held = f"{held} images are held out: fid_held, fid_even and kid_held are of as many samples"
    return tuple(note for note in (evaluator.warning, few_held if evaluator.samples > held else "") if note)


def from_arrays(draw_arrays: Callable[[int, int], tuple[np.ndarray, np.ndarray | None]]) -> Sample:
    """A `Sample` from a function that returns NumPy arrays (a registered generator)."""

    def sample(n: int, seed: int) -> tuple[Tensor, Tensor | None]:
        images, labels = draw_arrays(n, seed)
        return torch.from_numpy(images), None if labels is None else torch.from_numpy(labels)

    return sample


def from_pool(images: np.ndarray, labels: np.ndarray | None, seed: int) -> Sample:
    """A `Sample` from stored images uint8 (N,H,W,C): each call takes others of them, in random order.

    A call that asks for more than are left raises EvaluatorError.
    """
    order = np.random.default_rng([seed, 2]).permutation(len(images))
    taken = 0

    def sample(n: int, seed: int) -> tuple[Tensor, Tensor | None]:
        nonlocal taken
        picked = order[taken : taken + n]
        if len(picked) < n:
            raise EvaluatorError(
                f"{n} samples are needed, {{seen}} are left",
                rule="no sample is used twice",
                seen=len(picked),
                fix=f"lower -n {n}",
            )
        taken += n
        return torch.from_numpy(images[picked]), None if labels is None else torch.from_numpy(labels[picked])

    return sample


# ---- the fid and its interval


class _FidInterval:
    """The mean fid over batches, and the interval in which other measurements of the same size lie.

    Not a bootstrap: resampling with replacement repeats samples, which looks like less variety and inflates
    the distance itself (1.1 becomes 2.0 at n = 500 in 64 dimensions). The interval is centred on the mean of
    K independent batches, with the standard deviation s from the influence function. It is a normal tolerance
    interval, mean +- s (1.64 + 1.96/sqrt(K)): a prediction interval covers 95 % on average, but much less
    whenever the mean happens to be off; this one covers 95 % in 95 of 100 such cases.

    The distance to the held-out reals is biased upwards because they are few. It is therefore reported beside
    an equally biased one, fid_even: the same samples against as many training reals, others in every batch.
    """

    def __init__(self, real: RealFactor, train: Tensor, held: Tensor, n: int) -> None:
        self.n_held = min(n, len(held))
        self._real, self._train = real, train
        self._held = self._factor(held, 0)
        self._rows: list[tuple[float, ...]] = []

    def add(self, features: Tensor) -> None:
        """Add the features float (n,d) of one batch."""
        few = features[: self.n_held]
        self._rows.append(
            (
                frechet.frechet_of(self._real, features),
                frechet.frechet_of(self._held, few),
                frechet.frechet_of(self._factor(self._train, len(self._rows)), few),
                frechet.frechet_deviation(self._real, features) ** 2,
            )
        )

    def _factor(self, reals: Tensor, seed: int) -> RealFactor:
        return RealFactor.of(FeatureStatistics.of(reals[random_subset(len(reals), self.n_held, seed)]))

    def read(self) -> dict[str, Any]:
        """The fid fields of a `Measurement`, over all batches added."""
        centre, held, even, variance = np.mean(self._rows, axis=0).tolist()
        half = math.sqrt(variance) * (1.645 + 1.96 / math.sqrt(len(self._rows)))
        return {
            "fid": centre,
            "fid_low": max(0.0, centre - half),
            "fid_high": centre + half,
            "fid_held": held,
            "fid_even": even,
            "n_held": self.n_held,
        }


def _kids(train: Tensor, held: Tensor, features: Tensor, seed: int) -> dict[str, Any]:
    sides = {"kid": train, "kid_held": held}
    kids = {name: frechet.kid(reals, features, seed=seed) for name, reals in sides.items()}
    return {**{k: v.value for k, v in kids.items()}, **{f"{k}_error": v.error for k, v in kids.items()}}


def _by_class(
    real: Tensor, real_modes: Tensor, features: Tensor, modes: Tensor, names: Sequence[str]
) -> dict[str, float]:
    distances = frechet.frechet_by_class(real, real_modes, features, modes)
    return {names[mode]: distance for mode, distance in distances.items()}


# ---- features, seeds


def _batch(sample: Sample, evaluator: Evaluator, n: int, seed: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Images and labels of one batch, and its features on the CPU; they must be finite."""
    images, labels = sample(n, seed)
    evaluator.check(images)
    features = evaluator.extractor(images).cpu()
    if not features.isfinite().all():
        raise EvaluatorError(
            f"{{seen}} of {n} generated images have features that are not finite",
            rule="features must be finite",
            seen=int((~features.isfinite()).any(1).sum()),
            fix="choose another extractor, or another generator",
        )
    return images.cpu(), labels, features


def _extract(extractor: Extractor, images: np.ndarray) -> Tensor:
    return torch.cat([extractor(block).cpu() for block in torch.split(torch.from_numpy(images), BATCH)])


def _more_seeds(seed: int, repeats: int) -> list[int]:
    return [int(s) for s in np.random.SeedSequence(seed).generate_state(repeats)][: repeats - 1]
