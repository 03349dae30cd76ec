"""Makers of image data for tests: random pixels, folders of PNG files, npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.source_types import Labels, Pixels


def noise(shape: tuple[int, ...], seed: int = 0) -> Pixels:
    """Random uint8 pixels of this shape."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_folder(root: Path, images: Pixels, labels: Labels | None = None) -> Path:
    """Write uint8 images (N,H,W,C) as PNGs; with labels into the sub-folders `class0`, `class1`, ..."""
    for i, image in enumerate(images):
        folder = root if labels is None else root / f"class{labels[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(folder / f"{i:04}.png")
    return root


def write_npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path
