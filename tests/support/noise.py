"""A data set of random pixels, for tests of what does not depend on the content of images."""

from __future__ import annotations

import numpy as np

from pipeline.data.dataset import Dataset


def noise_dataset(n: int = 80, size: int = 8, channels: int = 1, classes: int = 2, seed: int = 0) -> Dataset:
    """n training images of random bytes, the first 20 of them held out too; classes 0 = unlabelled."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8)
    labels = np.arange(n) % classes if classes else None
    names = tuple(str(i) for i in range(classes))
    held = None if labels is None else labels[:20]
    fingerprint = f"{seed:08x}{size:04x}{channels:04x}"
    return Dataset("noise", pixels, pixels[:20], labels, held, names, fingerprint, 0)
