"""What the metrics of a measurement are computed from, each part once; and those that need no distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics.frechet import Evaluator
from pipeline.metrics.memorization import (
    MAX_COMPARED,
    Collapse,
    CollapseProbe,
    Copies,
    find_collapse,
    find_copies,
    find_modes,
    pixel_vectors,
    random_subset,
)
from pipeline.metrics.prdc import Manifold, manifold

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
    repeats: batches whose fids are averaged. train, held: features float (N,d) and (M,d) of the training and
    the held-out images, on the CPU.
    """

    sample: Sample
    dataset: Dataset
    evaluator: Evaluator
    seed: int
    repeats: int
    batch: Batch
    train: Tensor
    held: Tensor

    @cached_property
    def few(self) -> Tensor:
        """Which samples are compared one by one: sorted indices int64 (m,)."""
        return random_subset(len(self.batch.images), MAX_COMPARED, self.seed)

    @cached_property
    def reference(self) -> Tensor:
        """Which training images these are compared with: sorted indices int64, as many if there are."""
        return random_subset(len(self.train), len(self.few), self.seed)

    @cached_property
    def nearest(self) -> tuple[Copies, Tensor]:
        """`find_copies` of the few samples."""
        images, features = self.batch.images[self.few], self.batch.features[self.few]
        return find_copies(images, features, self.dataset, self.train, self.held)

    @cached_property
    def real_modes(self) -> tuple[Tensor, tuple[str, ...]]:
        """`find_modes` of the training images."""
        return find_modes(self.dataset, self.train)

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
    features = evaluator.extractor(images).cpu()
    if not features.isfinite().all():
        raise EvaluatorError(
            f"{{seen}} of {n} generated images have features that are not finite",
            rule="features must be finite",
            seen=int((~features.isfinite()).any(1).sum()),
            fix="choose another extractor, or another generator",
        )
    return Batch(images.cpu(), features, None if labels is None else labels.cpu())


def copies(inputs: MetricInputs) -> Copies:
    """How many samples are copies of training images."""
    return inputs.nearest[0]


def collapse(inputs: MetricInputs) -> Collapse:
    """How many modes the samples miss, and how alike they are."""
    few, reference, (real_modes, names) = inputs.few, inputs.reference, inputs.real_modes
    pixels = pixel_vectors(inputs.batch.images[few])
    real_pixels = pixel_vectors(torch.from_numpy(inputs.dataset.train)[reference])
    samples = CollapseProbe(pixels, inputs.batch.features[few], inputs.modes)
    reals = CollapseProbe(real_pixels, inputs.train[reference], real_modes[reference])
    return find_collapse(samples, reals, names)


def precision_recall(inputs: MetricInputs) -> Manifold:
    """Precision, recall, density and coverage of the few samples."""
    reference = inputs.reference
    return manifold(inputs.train[reference], inputs.batch.features[inputs.few][: len(reference)])


def label_accuracy(inputs: MetricInputs) -> float | None:
    """How many samples are of the class they were generated for; None without such labels."""
    labels = inputs.batch.labels
    return None if labels is None else float((labels[inputs.few] == inputs.modes).double().mean())
