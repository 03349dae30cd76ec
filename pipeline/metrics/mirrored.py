"""Do mirrored images look like the images? Then training on both doubles a data set (`mirror = true`)."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.data.dataset import Dataset
from pipeline.metrics.extractors import PixelExtractor
from pipeline.metrics.frechet import RealFactor, frechet_of
from pipeline.metrics.statistics import FeatureStatistics

MAX_IMAGES = 4000
ALIKE = 2.0
"""Up to this ratio mirrored images look like the images: symmetric sets have 1, digits 19 and more."""


def mirror_ratio(dataset: Dataset) -> float:
    """The Frechet distance of one half of the images, mirrored, to the other half, over that of it
    unmirrored.

    In the coarse pixels of `PixelExtractor`, of `MAX_IMAGES` at most. Near 1 where left and right are alike.
    """
    extractor = PixelExtractor(dataset.size, dataset.channels)
    rows = np.sort(dataset.different[:MAX_IMAGES])
    images = torch.from_numpy(np.ascontiguousarray(dataset.train[rows]))
    first, second = images[::2], images[1::2]
    real = RealFactor.of(FeatureStatistics.of(extractor(first)))
    plain = frechet_of(real, extractor(second))
    return frechet_of(real, extractor(second.flip(2))) / max(plain, 1e-12)
