"""The Frechet distance, KID, and the `Evaluator` that gives a generator its fid.

Features that are not finite make a distance NaN, and None in `Evaluator.score`. A fid depends on the number
of samples, so that number is part of the evaluator's hash.

All matrices are float64. A distance is computed on the device of its features if the factor of the reals is
there too, otherwise on the CPU; see `_solves_on_device` for its eigenvalues.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics.extractors import Extractor
from pipeline.metrics.precision import torch_state_lock
from pipeline.metrics.statistics import BATCH, SPLIT, FeatureAccumulator, FeatureStatistics, reals_statistics
from pipeline.storage.files import cache_root

_SMALL = 256
"""Smaller matrices are solved faster by the host than by a GPU: 0.1 ms at 64, against 1 to 2 ms."""
_FAST_FLOAT64 = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}
"""Compute capabilities with float64 at half the speed of float32; others run it at 1/32 or 1/64."""


@dataclass(frozen=True)
class RealFactor:
    """The reals' side of a Frechet distance, computed once, on the device of the statistics.

    n: number of vectors. mean: float64 (d,). trace: of the covariance. root: float64 (d,r) with
    root @ root.T = covariance, where r <= min(d, n - 1) is its rank.
    """

    n: int
    mean: Tensor
    trace: float
    root: Tensor

    @classmethod
    def of(cls, statistics: FeatureStatistics) -> RealFactor:
        """Factor the covariance by `eigh`; directions that n vectors cannot span are dropped as noise."""
        values, vectors = torch.linalg.eigh(statistics.cov)
        rank = min(len(values), statistics.n - 1)
        root = vectors[:, -rank:] * values[-rank:].clamp(min=0).sqrt()
        return cls(statistics.n, statistics.mean, float(statistics.cov.trace()), root)

    def to(self, device: torch.device | str) -> RealFactor:
        """The same on `device`."""
        return replace(self, mean=self.mean.to(device), root=self.root.to(device))


def frechet(real: RealFactor, fake: FeatureStatistics) -> float:
    """|m1-m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (FID: Heusel et al. 2017); NaN if not finite.

    Computed on the device of `real`. With S1 = R R', the eigenvalues of S1 S2 are those of the symmetric
    R' S2 R: no matrix root, no complex numbers, nothing to add to the diagonal.
    """
    fake = fake.to(real.root.device)
    gram = real.root.T @ fake.cov @ real.root
    return _frechet(real, fake.mean, fake.cov.trace(), gram, fake.n - 1)


def frechet_few(real: RealFactor, features: Tensor) -> float:
    """`frechet` for fewer feature vectors float (n,d) than dimensions: exact, cheaper, no covariance.

    Computed on the device of `real`; NaN if not finite; ValueError for fewer than two vectors.
    With S2 = B B', tr (S1 S2)^(1/2) is the nuclear norm of R' B, which has n columns only. Its singular
    values come from the n x n Gram matrix, several times faster than `svdvals` and as exact: the one that
    centring makes 0, whose root would be about 1e-8, is dropped.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 feature vectors, got {len(features)}")
    vectors = features.to(real.root.device).double()
    mean = vectors.mean(0)
    centred = (vectors - mean) / math.sqrt(len(vectors) - 1)
    projected = centred @ real.root
    rank = min(len(vectors) - 1, projected.shape[1])
    return _frechet(real, mean, centred.square().sum(), projected @ projected.T, rank)


def _frechet(real: RealFactor, mean: Tensor, trace: Tensor, gram: Tensor, rank: int) -> float:
    """The distance from the mean (d,), the covariance's trace, and `gram` with the eigenvalues of S1 S2.

    All are float64 on the device of `real`; the host receives one number, or the matrix if it solves it.
    Values that are not finite are kept from the solver, which may not terminate on them, and make the
    distance NaN.
    """
    apart = (real.mean - mean).square().sum() + real.trace + trace
    apart = torch.where(gram.isfinite().all(), apart, math.nan)
    gram = torch.nan_to_num((gram + gram.T) / 2, 0.0, 0.0, 0.0)
    # Reading synchronises, which is forbidden in this process while a CUDA graph is captured.
    with contextlib.nullcontext() if gram.device.type == "cpu" else torch_state_lock:
        distance = _read(gram, apart, rank)
    return max(0.0, distance) if math.isfinite(distance) else math.nan


def _read(gram: Tensor, apart: Tensor, rank: int) -> float:
    """`apart` minus twice the nuclear norm, on the host: one transfer from a GPU, whichever side solves."""
    if _solves_on_device(gram):
        with contextlib.suppress(RuntimeError):  # of cuSOLVER, or out of memory: the host solves it instead
            return float(apart - 2 * _nuclear(gram, rank))
    packed = torch.cat([gram.flatten(), apart[None]]).cpu()
    return float(packed[-1] - 2 * _nuclear(packed[:-1].view(gram.shape), rank))


def _solves_on_device(gram: Tensor) -> bool:
    """Whether to solve on the matrix's device: on a GPU only large matrices, and with fast float64."""
    if gram.device.type == "cpu":
        return True
    return len(gram) >= _SMALL and torch.cuda.get_device_capability(gram.device) in _FAST_FLOAT64


def _nuclear(gram: Tensor, rank: int) -> Tensor:
    """Sum of the square roots of the `rank` largest eigenvalues; the others are 0 up to rounding."""
    values: Tensor = torch.linalg.eigvalsh(gram)
    return values[-rank:].clamp(min=0).sqrt().sum()


def frechet_of(real: RealFactor, features: Tensor) -> float:
    """`frechet` for features float (n,d), by the cheaper of the two methods."""
    few = len(features) <= features.shape[1]
    return frechet_few(real, features) if few else frechet(real, FeatureStatistics.of(features))


def frechet_infinity(real: RealFactor, features: Tensor, *, points: int = 15, seed: int = 0) -> float:
    """The distance extrapolated to infinitely many samples (Chong and Forsyth 2020); may be below 0.

    It is the intercept of a line fitted to the distances of `points` random subsets, of n/5 to n features
    float (n,d), over 1/size.
    """
    rng = np.random.default_rng(seed)
    sizes = np.linspace(max(2, len(features) // 5), len(features), points).astype(int)
    subsets = [features[torch.from_numpy(rng.permutation(len(features))[:size])] for size in sizes]
    distances = [frechet_of(real, subset) for subset in subsets]
    return float(np.polyfit(1 / sizes, distances, 1)[1])


def frechet_deviation(real: RealFactor, features: Tensor) -> float:
    """Standard deviation of the Frechet distance over sets of n samples, from one set float (n,d).

    By the influence function (the infinitesimal jackknife, Efron 1982): with m, S of the sample and T the
    optimal transport from the sample to the reals, a sample x moves the distance by
    (2 (m - m1)'(x - m) + (x - m)'(I - T)(x - m)) / n. Accurate to a few per cent where the distance is well
    above 0, and up to twice too large where samples and reals have the same distribution.
    """
    vectors = features.double().cpu()
    n, mean = len(vectors), vectors.mean(0)
    centred = vectors - mean
    projected = centred @ real.root
    values, axes = torch.linalg.eigh(projected.T @ projected / (n - 1))
    kept = values > 1e-10 * values[-1]
    kept[: -(n - 1)] = False  # n centred vectors span n - 1 directions; the others are rounding
    transported = (projected @ axes[:, kept]).square() @ values[kept].rsqrt()
    moved = 2 * centred @ (mean - real.mean) + centred.square().sum(1) - transported
    return float(moved.std() / math.sqrt(n))


def frechet_by_class(
    real: Tensor, real_labels: Tensor, fake: Tensor, fake_labels: Tensor
) -> dict[int, float]:
    """The distance within each class, between features float (n,d) and (m,d) with labels int64 (n,) and (m,).

    A class with fewer than two vectors on either side is left out.
    """
    result = {}
    for label in sorted(set(real_labels.tolist())):
        reals, fakes = real[real_labels == label], fake[fake_labels == label]
        if min(len(reals), len(fakes)) >= 2:
            result[label] = frechet_of(RealFactor.of(FeatureStatistics.of(reals)), fakes)
    return result


class Kid(NamedTuple):
    """A squared maximum mean discrepancy (may be below 0: it is unbiased) and its standard error."""

    value: float
    error: float


def kid(real: Tensor, fake: Tensor, *, size: int = 1000, seed: int = 0) -> Kid:
    """Unbiased MMD^2 with the kernel (x'y/d + 1)^3 (Binkowski et al. 2018) of float (m,d) and (n,d).

    The mean over disjoint random subsets of at most `size` vectors, at least ten if there are enough. The
    usual hundred overlapping subsets have the same expectation, but their spread is no standard error.
    ValueError for fewer than four vectors on a side.
    """
    count = min(len(real), len(fake))
    if count < 4:
        raise ValueError(f"KID needs at least 4 feature vectors on each side, got {count}")
    size = max(2, min(size, count // 10))
    rng = np.random.default_rng(seed)
    pairs = [torch.from_numpy(rng.permutation(len(side))) for side in (real, fake)]
    values = []
    for start in range(0, count - size + 1, size):
        x, y = (side[p[start : start + size]].double() for side, p in zip((real, fake), pairs, strict=True))
        values.append(_mmd(x, y))
    return Kid(float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values))))


def _mmd(x: Tensor, y: Tensor) -> float:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(k: Tensor) -> Tensor:
        return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))

    return float(within(kernel(x, x)) + within(kernel(y, y)) - 2 * kernel(x, y).mean())


CONSIDERABLE_BIAS = 0.03
"""Of a fid, as a share of the total variance of the features."""


def bias_share(features: int, samples: int, reals: int) -> float:
    """How much too high a fid is, as a share of the total variance of the features.

    A sample of n vectors has a distance of about d/8n of the total variance to its own distribution:
    measured on Gaussians for d = 64..2048 and n = 1,000..10,000.
    """
    return features / (8 * min(samples, reals))


@dataclass(frozen=True)
class Evaluator:
    """An extractor, the statistics of the reals and a number of samples: all that a fid depends on.

    It is pickled as CPU data, so it can be sent to other machines. real: on the CPU. samples: generated
    images per fid. shape: (H,W,C) of the images. data: fingerprint of the data set. metrics: the user's own,
    of full measurements alone. second: of another extractor, for the second opinion of full measurements; it
    stays on the CPU. device_real: a copy of `real` on the GPU of the extractor, else None.
    """

    extractor: Extractor
    real: RealFactor
    samples: int
    shape: tuple[int, int, int]
    data: str
    metrics: tuple[str, ...] = ()
    second: Evaluator | None = None
    device_real: RealFactor | None = None

    @property
    def hash(self) -> str:
        """16 hex digits over extractor, data, split and samples; compare only fids of equal hashes."""
        identity = f"evaluator-1 {self.extractor.hash} {self.data} {SPLIT} {self.samples}"
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    @property
    def extractor_name(self) -> str:
        """One of `EXTRACTORS`, or `module:function`."""
        return self.extractor.name

    @property
    def warning(self) -> str:
        """The bias of fids by this evaluator if it is considerable; else empty."""
        share = bias_share(self.extractor.dim, self.samples, self.real.n)
        if share < CONSIDERABLE_BIAS:
            return ""
        few = f"{self.samples} samples and {self.real.n} reals are few for {self.extractor.dim} features"
        return (
            f"{few}: fid is about {share * self.real.trace:.3g} too high; compare it only at this number of "
            "samples; kid, which finalists and evaluate show beside it, has no bias"
        )

    def score(self, sample: Callable[[int], Tensor]) -> float | None:
        """The fid of `samples` images from `sample(n)`, which makes uint8 (n,H,W,C) for n <= 500.

        None if the features are not finite. EvaluatorError for images of another shape.
        """
        few = self.samples <= self.extractor.dim
        accumulator = FeatureAccumulator()
        kept: list[Tensor] = []
        for start in range(0, self.samples, BATCH):
            images = sample(min(BATCH, self.samples - start))
            self.check(images)
            (kept.append if few else accumulator.add)(self.extractor(images))
        if few:
            features = torch.cat(kept)
            fid = frechet_few(self._real_on(features.device), features)
        else:
            statistics = accumulator.statistics()
            fid = frechet(self._real_on(statistics.mean.device), statistics)
        return fid if math.isfinite(fid) else None

    def _real_on(self, device: torch.device) -> RealFactor:
        """The factor of the reals on `device` if it has been copied there, else that on the CPU."""
        moved = self.device_real
        return moved if moved is not None and moved.root.device == device else self.real

    def check(self, images: Tensor) -> None:
        """Raise EvaluatorError unless `images` are uint8 (n,H,W,C) of the data's shape."""
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.shape:
            rule = f"they must be uint8 {self.shape}, as the data"
            fix = "evaluate it on the data that it was trained on"
            seen = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape[1:])}"
            raise EvaluatorError("generated images are {seen}", rule=rule, seen=seen, fix=fix)

    def to(self, device: torch.device | str) -> Evaluator:
        """A copy that extracts and scores on `device`; its `real` stays on the CPU."""
        device_real = None if torch.device(device).type == "cpu" else self.real.to(device)
        return replace(self, extractor=self.extractor.to(device), device_real=device_real)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self if self.device_real is None else self.to("cpu"))


def build_evaluator(
    dataset: Dataset, extractor: Extractor, samples: int, cache: Path | None = None
) -> Evaluator:
    """The evaluator of the training split of `dataset`; the statistics are cached below `cache`.

    samples: generated images per fid, at least 2. cache: None = `files.cache_root()`.

    Raises:
        EvaluatorError: `samples` is below 2, or the extractor cannot tell the training images apart.
    """
    if samples < 2:
        rule = "a fid needs at least 2"
        raise EvaluatorError("{seen} samples are too few", rule=rule, seen=samples, fix="the default is 2000")
    statistics = reals_statistics(dataset, extractor, (cache or cache_root()) / "statistics")
    shape = (dataset.size, dataset.size, dataset.channels)
    return Evaluator(extractor, RealFactor.of(statistics), samples, shape, dataset.fingerprint)
