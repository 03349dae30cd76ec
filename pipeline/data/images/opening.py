"""Pillow opens an image: its format alone, within the limit of pixels, with the text of PNGs left aside."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError, features

from pipeline.data.images.image_formats import UnusableImage
from pipeline.data.images.padding import is_cut, padded
from pipeline.data.images.png_chunks import essential_chunks

MAX_PIXELS = 89_478_485  # Pillow's own warning level (a quarter GiB of RGB)
PADDED = "padded"
"""The entry of `info` that says that the end of a file is missing, and filled."""
HEIF_MISSING = "HEIF needs a package: pip install pillow-heif"
AVIF_MISSING = "AVIF needs a newer Pillow: pip install -U pillow"

_UNITS = {"L;2": 85, "L;4": 17}  # the transparent grey of a PNG of 2 or 4 bits counts in these


def open_image(stream: BinaryIO, format: str) -> Image.Image:
    """The opened picture of a seekable stream; format: one of `FORMATS`.

    Raises:
        UnusableImage: it is too large, a package is missing, or the header is broken.
    """
    if format == "HEIF":
        _register_heif()
    if format == "AVIF" and not features.check("avif"):
        raise UnusableImage(AVIF_MISSING)
    stream.seek(0)
    try:
        image = _opened(stream, format)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImage("too large", str(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # a file from anywhere may break Pillow in any way
        if is_cut(stream, format):
            raise UnusableImage("truncated", "most of the file is missing") from error
        raise unreadable(error) from error
    if image.width * image.height > MAX_PIXELS:
        raise UnusableImage("too large", f"{image.width}x{image.height} pixels, more than {MAX_PIXELS}")
    if format == "PNG" and isinstance(key := image.info.get("transparency"), int):
        image.info["transparency"] = key * _UNITS.get(raw_mode(image), 1)
    return image


def _opened(stream: BinaryIO, format: str) -> Image.Image:
    try:
        return Image.open(stream, formats=(format,))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception:
        if format == "PNG":
            return Image.open(essential_chunks(stream), formats=(format,))
        if whole := padded(stream, format, b"\0"):
            image = Image.open(whole, formats=(format,))
            image.info[PADDED] = True
            return image
        raise


def raw_mode(image: Image.Image) -> str:
    """How the file of an opened picture stores its pixels, as Pillow calls it, `RGB;16B`; "" = not known."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


@contextmanager
def errors_as_reasons() -> Iterator[None]:
    """Errors of decoders become `UnusableImage`: a file from anywhere may break them in any way."""
    try:
        yield
    except UnusableImage:
        raise
    except MemoryError as error:
        raise UnusableImage("too large", "not enough memory") from error
    except Exception as error:
        raise unreadable(error) from error


def unreadable(error: Exception) -> UnusableImage:
    """The reason for an error of a decoder."""
    if isinstance(error, UnusableImage):
        return error
    if isinstance(error, UnidentifiedImageError):
        return UnusableImage("unreadable", "its header is broken")
    reason = "truncated" if "truncated" in str(error).lower() else "unreadable"
    return UnusableImage(reason, f"{type(error).__name__}: {error}"[:200])


def _register_heif() -> None:
    if "HEIF" in Image.OPEN:
        return
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        raise UnusableImage(HEIF_MISSING) from error
