"""Arrays of images as pictures of Pillow's."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

DRAWN_BY = "gansweep"
"""The entry `Software` of sheets and charts, by which a data set knows that they are none of its images."""


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


def save_drawing(picture: Image.Image, file: Path | IO[bytes], compress_level: int = 6) -> None:
    """Write a sheet of images as a PNG that is marked as drawn."""
    marks = PngInfo()
    marks.add_text("Software", DRAWN_BY)
    picture.save(file, format="PNG", pnginfo=marks, compress_level=compress_level)


def is_drawing(picture: Image.Image) -> bool:
    """Whether a picture that was opened is marked as drawn: a PNG by `Software`, a GIF by its comment."""
    return picture.info.get("Software") == DRAWN_BY or picture.info.get("comment") == DRAWN_BY.encode()
