"""Arrays of images as pictures of Pillow's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image


def to_picture(image: npt.NDArray[np.uint8]) -> Image.Image:
    """One image uint8 (H,W,C) with C = 1 or 3 as a picture `L` or `RGB`."""
    return Image.fromarray(np.ascontiguousarray(image[:, :, 0] if image.shape[2] == 1 else image))


def image_sheet(images: npt.NDArray[np.uint8], columns: int) -> Image.Image:
    """Images uint8 (N,H,W,C) as one picture, row by row; missing cells are black."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, height, width, channels), np.uint8)
    cells[:count] = images
    sheet = cells.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return to_picture(sheet.reshape(rows * height, columns * width, channels))
