"""How far copies of an image differ, and how near different images come, by the descriptors that find copies.

Two photographs of scikit-learn are cut into tiles. Printed are the largest differences (root mean square, of
255 levels) of a tile and the same tile saved as JPEG, or enlarged twofold and shrunk again; and the smallest
of two different tiles, overlapping ones of plain sky among them, and of two digits. What differs by less than
`duplicates.NEAR_RMS` is taken for a copy.

    python benchmarks/copies.py
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_sample_images

from pipeline.data.dataset import load_dataset
from pipeline.data.preparing.duplicates import NEAR_RMS, describe

Pixels = npt.NDArray[np.uint8]
_SIDES, _STEP = (64, 100, 128, 256), 64


def main() -> None:
    print(f"copies differ by less than {NEAR_RMS}")
    for side in _SIDES:
        tiles = cut(side)
        again = {
            "JPEG 60": np.stack([saved(tile, 60) for tile in tiles]),
            "JPEG 85": np.stack([saved(tile, 85) for tile in tiles]),
            "resized": np.stack([resized(tile) for tile in tiles]),
        }
        largest = {name: differences(tiles, other).max() for name, other in again.items()}
        row = "  ".join(f"{name} {value:.2f}" for name, value in largest.items())
        print(f"{len(tiles):4} tiles of {side:3} px: {row}  two different tiles {nearest(tiles):.2f}")
    for name in ("mnist5k", "digits"):
        print(f"{name}: two different images {nearest(load_dataset(name).train):.2f}")


def cut(side: int) -> Pixels:
    """Tiles of both photographs: of 128 px, resized, for the smaller sides; overlapping by half."""
    photographs, crop = [Image.fromarray(array) for array in load_sample_images().images], max(128, side)
    corners = [(x, y) for x in range(0, 640 - crop, _STEP) for y in range(0, 426 - crop, _STEP)]
    tiles = [p.crop((x, y, x + crop, y + crop)).resize((side, side)) for p in photographs for x, y in corners]
    return np.stack([np.asarray(tile) for tile in tiles])


def saved(image: Pixels, quality: int) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def resized(image: Pixels) -> Pixels:
    side = len(image)
    return np.asarray(Image.fromarray(image).resize((2 * side, 2 * side)).resize((side, side)))


def differences(first: Pixels, second: Pixels) -> npt.NDArray[np.float64]:
    a, b = (describe(images, len(images)).astype(np.float64) for images in (first, second))
    return np.sqrt(((a - b) ** 2).mean(1))


def nearest(images: Pixels) -> float:
    """The smallest difference between two of the images."""
    found = np.inf
    descriptors = describe(images, len(images)).astype(np.float32)
    squares = (descriptors**2).sum(1)
    for start in range(0, len(images), 500):
        block = descriptors[start : start + 500]
        distances = squares[start : start + 500, None] + squares - 2 * block @ descriptors.T
        distances[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        found = min(found, float(distances.min()))
    return float(np.sqrt(max(found, 0) / descriptors.shape[1]))


if __name__ == "__main__":
    main()
