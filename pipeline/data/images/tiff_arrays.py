"""TIFF files that Pillow does not read: other numbers of bits and channels. Needs the optional tifffile."""

from __future__ import annotations

import importlib
import logging
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

from pipeline.data.images.image_formats import UnusableImage
from pipeline.data.images.opening import MAX_PIXELS

TIFFFILE_MISSING = "this kind of TIFF needs a package: pip install tifffile"
MOST_CHANNELS = 4
_GREY_OR_RGB = (0, 1, 2)

Values = npt.NDArray[Any]


def is_unknown_layout(stream: BinaryIO) -> bool:
    """Whether a TIFF is whole, but of numbers of bits or channels that Pillow does not know."""
    stream.seek(0)
    try:
        TiffImagePlugin.TiffImageFile(stream)
    except SyntaxError as error:
        return str(error).startswith(("unknown pixel mode", "unknown data organization", "Invalid value"))
    except Exception:  # a file from anywhere
        return False
    return False


def count_pages(stream: BinaryIO) -> int:
    """How many images a TIFF has; smaller copies of them do not count."""
    with _open(stream) as tiff:
        return len(_full_pages(tiff))


def read_tiff(stream: BinaryIO, page: int) -> Values:
    """The values of an image: (H,W), (H,W,3), or with alpha (H,W,2) and (H,W,4), of any number type.

    Raises:
        UnusableImage: tifffile is missing or does not read it, or it has another number of channels.
    """
    with _open(stream) as tiff:
        pages = _full_pages(tiff)
        if page >= len(pages):
            raise UnusableImage("truncated", f"image {page} is missing")
        found = pages[page]
        if found.imagelength * found.imagewidth > MAX_PIXELS:
            raise UnusableImage("too large", f"{found.imagewidth}x{found.imagelength} pixels")
        if found.samplesperpixel > MOST_CHANNELS or found.photometric not in _GREY_OR_RGB:
            seen = f"{found.samplesperpixel} channels, photometric {int(found.photometric)}"
            raise UnusableImage("neither grey nor colour", seen)
        try:
            values: Values = found.asarray()
        except MemoryError:
            raise
        except Exception as error:
            raise UnusableImage("unreadable", f"{type(error).__name__}: {error}"[:200]) from error
        orientation = found.tags.get("Orientation")
        inverted = found.photometric == 0
        if found.planarconfig == 2 and values.ndim == 3:
            values = np.moveaxis(values, 0, 2)
    if values.dtype.kind == "b":
        values = values * np.uint8(255)
    if (
        values.dtype.kind not in "iuf"
        or values.ndim < 2
        or values.shape[2:] not in ((), (1,), (2,), (3,), (4,))
    ):
        raise UnusableImage("neither grey nor colour", f"channels: {values.shape}")
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    values = _upright(values, int(orientation.value) if orientation else 1)
    return inverse(values) if inverted else values


def inverse(values: Values) -> Values:
    """Values of a file where the least is white."""
    if values.dtype.kind == "f":
        return -values
    return ~values  # for signed and unsigned integers alike


def _upright(values: Values, orientation: int) -> Values:
    if orientation in (5, 6, 7, 8):
        values = np.swapaxes(values, 0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _full_pages(tiff: Any) -> list[Any]:
    return [page for page in tiff.pages if not page.subfiletype & 5] or list(tiff.pages)


def _open(stream: BinaryIO) -> Any:
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError as error:
        raise UnusableImage(TIFFFILE_MISSING) from error
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it says of single files is in the reason
    stream.seek(0)
    try:
        return tifffile.TiffFile(stream)
    except Exception as error:
        raise UnusableImage("unreadable", f"{type(error).__name__}: {error}"[:200]) from error
