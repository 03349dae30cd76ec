"""The ratio that tells whether mirrored images look like the images."""

import numpy as np

from pipeline.data.dataset import Dataset, load_dataset
from pipeline.metrics.mirrored import ALIKE, mirror_ratio


def of(images: np.ndarray) -> Dataset:
    return Dataset("made", images, images[:16], None, None, (), "0" * 16)


def test_digits_are_no_mirror_images() -> None:
    assert mirror_ratio(load_dataset("digits")) > 5 * ALIKE


def test_images_and_their_mirror_images() -> None:
    digits = load_dataset("digits").train
    rng = np.random.default_rng(0)
    flipped = np.where(rng.random((len(digits), 1, 1, 1)) < 0.5, digits, digits[:, :, ::-1])
    assert mirror_ratio(of(flipped)) < ALIKE
