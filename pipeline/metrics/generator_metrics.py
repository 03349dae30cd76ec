"""The metrics of a measurement, each computed from the same samples and reals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics import frechet, memorization
from pipeline.metrics.frechet import Evaluator, RealFactor
from pipeline.metrics.memorization import pixel_vectors, random_subset
from pipeline.metrics.prdc import manifold
from pipeline.metrics.statistics import FeatureStatistics

_SLOW_BLOCK = 100
"""Images between two signs of progress: Inception takes 40 s for them on one core."""

Sample = Callable[[int, int], tuple[Tensor, Tensor | None]]
"""(n, seed) -> images uint8 (n,H,W,C) and the labels int64 (n,) they were generated for, or None."""


@dataclass(frozen=True)
class Batch:
    """Samples: images uint8 (n,H,W,C), features float (n,d), labels int64 (n,) or None; on the CPU."""

    images: Tensor
    features: Tensor
    labels: Tensor | None


@dataclass(frozen=True, eq=False, kw_only=True)
class MetricInputs:
    """The samples and the reals of a measurement.

    evaluator: its `samples` is n. seed: of the batch; all that is random in a metric derives from it.
    repeats: batches whose fids are averaged. train, held: features float (N,d) and (M,d) of the two splits,
    on the CPU. on_progress: called between blocks of a slow extraction.
    """

    sample: Sample
    dataset: Dataset
    evaluator: Evaluator
    seed: int
    repeats: int
    batch: Batch
    train: Tensor
    held: Tensor
    on_progress: Callable[[], object] = lambda: None

    @cached_property
    def few(self) -> Tensor:
        """Which samples are compared one by one: sorted indices int64 (m,)."""
        return random_subset(len(self.batch.images), memorization.MAX_COMPARED, self.seed)

    @cached_property
    def reference(self) -> Tensor:
        """Which training images these are compared with: sorted indices int64, as many if there are.

        No two are copies of each other: a copy would make the neighbourhood of an image a point.
        """
        different = torch.from_numpy(self.dataset.different)
        return different[random_subset(len(different), len(self.few), self.seed)]

    @cached_property
    def nearest(self) -> tuple[memorization.Copies, Tensor]:
        """`find_copies` of the few samples."""
        images, features = self.batch.images[self.few], self.batch.features[self.few]
        return memorization.find_copies(images, features, self.dataset, self.train, self.held)

    @cached_property
    def real_modes(self) -> tuple[Tensor, tuple[str, ...]]:
        """`find_modes` of the training images."""
        return memorization.find_modes(self.dataset, self.train)

    @cached_property
    def modes(self) -> Tensor:
        """The mode int64 (m,) of each of the few samples: that of the nearest training image."""
        return self.real_modes[0][self.nearest[1]]


def draw(sample: Sample, evaluator: Evaluator, seed: int) -> Batch:
    """One batch of `evaluator.samples` images.

    Raises:
        EvaluatorError: the images are not of the data's shape, or their features are not finite.
    """
    n = evaluator.samples
    images, labels = sample(n, seed)
    evaluator.check(images)
    features = _finite(evaluator.extractor(images).cpu())
    return Batch(images.cpu(), features, None if labels is None else labels.cpu())


def _finite(features: Tensor) -> Tensor:
    if not features.isfinite().all():
        problem = f"{{seen}} of {len(features)} generated images have features that are not finite"
        rule, fix = "features must be finite", "choose another extractor, or another generator"
        raise EvaluatorError(problem, rule=rule, seen=int((~features.isfinite()).any(1).sum()), fix=fix)
    return features


def fid_interval(inputs: MetricInputs) -> dict[str, float]:
    """The mean fid over `repeats` batches, and the interval in which other measurements of the same size lie.

    Not a bootstrap: resampling with replacement repeats samples, which looks like less variety and inflates
    the distance itself (1.1 becomes 2.0 at n = 500 in 64 dimensions). The interval is centred on the mean of
    K independent batches, with the standard deviation s from the influence function. It is a normal tolerance
    interval, mean +- s (1.64 + 1.96/sqrt(K)): a prediction interval covers 95 % on average, but much less
    whenever the mean happens to be off; this one covers 95 % in 95 of 100 such cases.

    The distance to the held-out reals is biased upwards because they are few. It is therefore reported beside
    an equally biased one, fid_even: the same samples against as many training reals, others in every batch.
    """
    real, n_held = inputs.evaluator.real, min(len(inputs.batch.images), len(inputs.held))

    def factor(reals: Tensor, seed: int) -> RealFactor:
        return RealFactor.of(FeatureStatistics.of(reals[random_subset(len(reals), n_held, seed)]))

    held_factor, rows = factor(inputs.held, 0), []
    more_seeds = np.random.SeedSequence(inputs.seed).generate_state(inputs.repeats).tolist()
    for index, seed in enumerate([inputs.seed, *more_seeds[:-1]]):
        features = (draw(inputs.sample, inputs.evaluator, seed) if index else inputs.batch).features
        fid, variance = frechet.frechet_of(real, features), frechet.frechet_deviation(real, features) ** 2
        even_factor = factor(inputs.train, index)
        held, even = (frechet.frechet_of(side, features[:n_held]) for side in (held_factor, even_factor))
        rows.append((fid, held, even, variance))
    fid, held, even, variance = np.mean(rows, axis=0).tolist()
    low, high = _interval(fid, math.sqrt(variance), len(rows))
    return {
        "fid": fid,
        "fid_low": low,
        "fid_high": high,
        "fid_held": held,
        "fid_even": even,
        "n_held": n_held,
    }


def _interval(mean: float, deviation: float, batches: int) -> tuple[float, float]:
    """The normal tolerance interval around the mean of so many batches; see `fid_interval`."""
    half = deviation * (1.645 + 1.96 / math.sqrt(batches))
    return max(0.0, mean - half), mean + half


def second_fid(inputs: MetricInputs) -> dict[str, float | None]:
    """The fid of the first batch in the second extractor, with its interval; None without one."""
    second = inputs.evaluator.second
    if second is None:
        return dict.fromkeys(("second_fid", "second_low", "second_high"))
    blocks = []
    for block in torch.split(inputs.batch.images, _SLOW_BLOCK):
        blocks.append(second.extractor(block).cpu())
        inputs.on_progress()
    features = _finite(torch.cat(blocks))
    fid = frechet.frechet_of(second.real, features)
    low, high = _interval(fid, frechet.frechet_deviation(second.real, features), 1)
    return {"second_fid": fid, "second_low": low, "second_high": high}


def fid_infinity(inputs: MetricInputs) -> float:
    """The fid extrapolated to infinitely many samples."""
    return frechet.frechet_infinity(inputs.evaluator.real, inputs.batch.features, seed=inputs.seed)


def fid_by_class(inputs: MetricInputs) -> dict[str, dict[str, float]]:
    """The fid within each class, by its name; empty without labels."""
    (real_modes, names), few = inputs.real_modes, inputs.batch.features[inputs.few]
    distances = {}
    if inputs.dataset.labelled:
        distances = frechet.frechet_by_class(inputs.train, real_modes, few, inputs.modes)
    return {"fid_by_class": {names[mode]: distance for mode, distance in distances.items()}}


def kids(inputs: MetricInputs) -> dict[str, float]:
    """KID to both splits."""
    found: dict[str, float] = {}
    for name, reals in (("kid", inputs.train), ("kid_held", inputs.held)):
        kid = frechet.kid(reals, inputs.batch.features, seed=inputs.seed)
        found |= {name: kid.value, f"{name}_error": kid.error}
    return found


def precision_recall(inputs: MetricInputs) -> dict[str, float]:
    """Precision, recall, density and coverage of the few samples."""
    reference = inputs.reference
    few = inputs.batch.features[inputs.few][: len(reference)]
    return manifold(inputs.train[reference], few)._asdict()


def copies(inputs: MetricInputs) -> dict[str, object]:
    """How many samples are copies of training images."""
    return inputs.nearest[0]._asdict()


def collapse(inputs: MetricInputs) -> dict[str, object]:
    """How many modes the samples miss, and how alike they are."""
    few, reference, (real_modes, names) = inputs.few, inputs.reference, inputs.real_modes
    pixels = pixel_vectors(inputs.batch.images[few])
    real_pixels = pixel_vectors(torch.from_numpy(inputs.dataset.train)[reference])
    samples = memorization.CollapseProbe(pixels, inputs.batch.features[few], inputs.modes)
    reals = memorization.CollapseProbe(real_pixels, inputs.train[reference], real_modes[reference])
    return memorization.find_collapse(samples, reals, names)._asdict()


def label_accuracy(inputs: MetricInputs) -> float | None:
    """How many samples are of the class they were generated for; None without such labels."""
    labels = inputs.batch.labels
    return None if labels is None else float((labels[inputs.few] == inputs.modes).double().mean())
