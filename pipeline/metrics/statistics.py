"""Mean and covariance of features in float64: accumulated by batches; those of the reals are cached."""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.errors import EvaluatorError
from pipeline.metrics.extractors import Extractor
from pipeline.storage.files import replacing
from pipeline.tables import EXTRACTORS
from pipeline.user_code import run

log = logging.getLogger(__name__)

BATCH = 500
"""Images per batch at most: bounds memory and changes no result."""
SPLIT = "train"
_CACHE = "statistics-1"
"""Version written into a cache file; raise it when the same images would give other statistics."""


@dataclass(frozen=True)
class FeatureStatistics:
    """Mean and unbiased covariance of n feature vectors: float64 (d,) and (d,d), both on one device."""

    n: int
    mean: Tensor
    cov: Tensor

    @classmethod
    def of(cls, features: Tensor) -> FeatureStatistics:
        """Statistics of features float (n,d), n >= 2, on their device."""
        accumulator = FeatureAccumulator()
        accumulator.add(features)
        return accumulator.statistics()

    def to(self, device: torch.device | str) -> FeatureStatistics:
        """The same on `device`."""
        return FeatureStatistics(self.n, self.mean.to(device), self.cov.to(device))


class FeatureAccumulator:
    """Accumulates `FeatureStatistics`, by the pairwise update of Chan, Golub and LeVeque (1983)."""

    def __init__(self) -> None:
        self.n = 0
        self._mean = self._scatter = torch.zeros(0)

    def add(self, features: Tensor) -> None:
        """Add features float (n,d), n >= 1; all calls on one device."""
        batch = features.double()
        mean = batch.mean(0)
        centred = batch - mean
        scatter = centred.T @ centred
        if self.n:
            total, shift = self.n + len(batch), mean - self._mean
            scatter += self._scatter + torch.outer(shift, shift) * (self.n * len(batch) / total)
            mean = self._mean + shift * (len(batch) / total)
        self.n, self._mean, self._scatter = self.n + len(batch), mean, scatter

    def statistics(self) -> FeatureStatistics:
        """Of all vectors, on their device, without a synchronisation; ValueError for fewer than two."""
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, got {self.n}")
        return FeatureStatistics(self.n, self._mean, self._scatter / (self.n - 1))


def reals_statistics(dataset: Dataset, extractor: Extractor, folder: Path) -> FeatureStatistics:
    """Statistics of the training split, cached in `folder`; a file of another version is not used.

    Raises:
        EvaluatorError: the features are not finite, or the same for all images.
    """
    path = folder / f"{dataset.fingerprint}-{extractor.hash}-{SPLIT}-{len(dataset.train)}.npz"
    identity = f"{_CACHE} {path.stem}"
    statistics = _read(path, identity, len(dataset.train), extractor.dim)
    if statistics is None:

        def measure() -> FeatureStatistics:
            accumulator = FeatureAccumulator()
            for block in torch.split(torch.from_numpy(dataset.train), BATCH):
                accumulator.add(extractor(block))
            return accumulator.statistics().to("cpu")

        own = EXTRACTORS.is_user_code(extractor.name)
        problem = f"the extractor {extractor.name} does not work"
        statistics = run(problem, extractor.name, measure) if own else measure()
        _check_reals(statistics, dataset)
        _write(path, identity, statistics)
    return statistics


def _check_reals(statistics: FeatureStatistics, dataset: Dataset) -> None:
    """Refuse statistics to which no distance has a meaning."""
    if not (statistics.mean.isfinite().all() and statistics.cov.isfinite().all()):
        problem, fix = "are not finite", "choose another --extractor"
    elif float(statistics.cov.trace()) <= 1e-12 * float(statistics.mean.square().sum() + 1):
        problem, fix = "are the same for all of them", "give other images, or another --extractor"
    else:
        return
    problem = f"the features of the training images of {{seen}} {problem}"
    rule = "the extractor must tell the images apart"
    raise EvaluatorError(problem, rule=rule, seen=dataset.source, fix=fix)


def _read(path: Path, identity: str, n: int, dim: int) -> FeatureStatistics | None:
    """The cached statistics, or None if missing, damaged, of another version or of other images."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = str(stored["identity"]) if "identity" in stored else "none"
            count, mean, cov = int(stored["n"]), stored["mean"], stored["cov"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if found != identity:
        log.info(f"cached statistics are not used: they are {found!r}, {identity!r} is needed")
        return None
    fits = count == n and mean.shape == (dim,) and cov.shape == (dim, dim)
    if not (fits and np.isfinite(mean).all() and np.isfinite(cov).all()):
        return None
    return FeatureStatistics(count, torch.from_numpy(mean), torch.from_numpy(cov))


def _write(path: Path, identity: str, statistics: FeatureStatistics) -> None:
    mean, cov = statistics.mean.numpy(), statistics.cov.numpy()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez(temporary, identity=identity, n=statistics.n, mean=mean, cov=cov)
    except OSError as error:  # a full or read-only disk: the next start computes them again
        log.warning(f"the reals' statistics are not cached: {error}")
