"""Values of more than 8 bits: which kind they are of, how to read them all, and how they become 8 bits.

Pillow keeps the high byte alone of 16-bit colours. They are therefore decoded twice: once as they are
declared and once with the two bytes exchanged, which gives the low byte.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.images.exif import orientation
from pipeline.data.images.opening import raw_mode
from pipeline.data.images.tiff_arrays import inverse
from pipeline.data.images.truncation import load

Values = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]
Opener = Callable[[BinaryIO], Image.Image]

_SAMPLE_FORMAT, _PHOTOMETRIC = 339, 262
_SIGNED = 2
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_DECLARED_16 = ("RGB;16", "RGBA;16", "RGBX;16")
_GREY_ALPHA = "LA;16B"


class WideValues(NamedTuple):
    """values: (H,W) or (H,W,3) of any number type. alpha: uint8 (H,W), 0..255, or None = opaque.

    truncated: a part was missing, and is filled. way_up: the EXIF orientation that they are stored in.
    """

    values: Values
    alpha: Pixels | None = None
    truncated: bool = False
    way_up: int = 1


def wide_kind(image: Image.Image) -> str:
    """The kind of an opened picture's values: `16-bit`, `32-bit`, `signed`, `float`, or "" for 8 bits."""
    signed = _SIGNED in _tag(image, _SAMPLE_FORMAT)
    if image.mode == "F":
        return "float"
    if image.mode == "L" and signed:
        return "signed"
    if image.mode == "I":
        return "signed" if signed else "32-bit" if image.format == "TIFF" else "16-bit"
    stored = raw_mode(image)
    return (
        "16-bit" if image.mode.startswith("I;16") or stored.startswith((*_DECLARED_16, _GREY_ALPHA)) else ""
    )


def kind_of(values: Values) -> str:
    """The kind of an array's values, as `wide_kind`."""
    if values.dtype.kind == "f":
        return "float"
    if values.dtype.kind == "i":
        return "signed"
    return {1: "", 2: "16-bit"}.get(values.dtype.itemsize, "32-bit")


def read_wide(opener: Opener, stream: BinaryIO) -> WideValues:
    """The values of a picture whose `wide_kind` is not "".

    Raises:
        UnusableImage: it is truncated or broken.
    """
    stored = raw_mode(opener(stream))
    if stored == _GREY_ALPHA:
        loaded = load(lambda s: _stored_as(opener(s), "RGBA"), stream)
        four = np.asarray(loaded.image).astype(np.uint16)
        alpha = four[..., 2].astype(np.uint8)
        return WideValues(
            four[..., 0] << 8 | four[..., 1], alpha, loaded.truncated, orientation(loaded.image)
        )
    if stored.startswith(_DECLARED_16):
        return _both_bytes(opener, stream, stored)
    loaded = load(opener, stream)
    image = loaded.image
    values = np.asarray(image)
    if image.mode == "L":
        values = values.view(np.int8)
    elif image.mode == "I" and wide_kind(image) == "32-bit":
        values = values.view(np.uint32)
    if 0 in _tag(image, _PHOTOMETRIC):
        values = inverse(values)
    return WideValues(values, _opaque_where_not(image, values), loaded.truncated, orientation(image))


def _both_bytes(opener: Opener, stream: BinaryIO, stored: str) -> WideValues:
    high = load(opener, stream)
    low = load(lambda s: _stored_as(opener(s), stored[:-1] + _SWAPPED[stored[-1]]), stream)
    values = np.asarray(high.image).astype(np.uint16) << 8 | np.asarray(low.image)
    alpha = (values[..., 3] >> 8).astype(np.uint8) if values.shape[2] == 4 else None
    values = values[..., :3]
    if alpha is None:
        alpha = _opaque_where_not(high.image, values)
    return WideValues(values, alpha, high.truncated, orientation(high.image))


def _stored_as(image: Image.Image, stored: str) -> Image.Image:
    """The opened picture, to be decoded as if its pixels were stored in another way."""
    tiles: Any = getattr(image, "tile")  # noqa: B009  (Image itself has none)
    for i, tile in enumerate(tiles):
        args = (stored, *tile[3][1:]) if isinstance(tile[3], tuple) else stored
        changed = (tile[0], tile[1], tile[2], args)
        tiles[i] = tile._make(changed) if hasattr(tile, "_make") else changed  # a plain tuple in old Pillow
    return image


def _tag(image: Image.Image, number: int) -> tuple[int, ...]:
    """The values of a TIFF's tag; () for other formats."""
    tags = getattr(image, "tag_v2", None)
    found = tags.get(number, ()) if image.format == "TIFF" and tags is not None else ()
    return found if isinstance(found, tuple) else (found,)


def _opaque_where_not(image: Image.Image, values: Values) -> Pixels | None:
    """Alpha of a PNG that names one value, or colour, as transparent."""
    key = image.info.get("transparency")
    if image.format != "PNG" or key is None or isinstance(key, bytes):
        return None
    same = values == np.asarray(key)
    return np.where(same.all(2) if values.ndim == 3 else same, 0, 255).astype(np.uint8)


def finite_range(values: Values) -> tuple[float, float] | None:
    """The least and the largest finite value; None if there is none."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(finite.min()), float(finite.max())) if finite.size else None


def to_8_bits(values: Values, value_range: tuple[float, float]) -> Image.Image:
    """Values mapped linearly from `value_range` to 0..255: a picture `L` or `RGB`.

    What is no number becomes black; so does everything where the range is empty.
    """
    low, high = value_range
    if not high > low:
        return Image.fromarray(np.zeros(values.shape, np.uint8))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    scaled = np.nan_to_num(scaled, nan=0, posinf=255, neginf=0).clip(0, 255)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))
