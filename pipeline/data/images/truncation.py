"""Images whose end is missing or broken.

One policy for every format: where at most `MAX_MISSING` of a picture's pixels are missing, they are filled
with the row beside them and the file is used; where more are missing, it is unusable. A progressive JPEG
misses nothing once its brightness has come in full, if not in its finest steps.

What is missing is measured for each image by itself: it is decoded twice, over different fillings, and what
then differs was not in the file. Pillow's LOAD_TRUNCATED_IMAGES, one switch for all threads, is not used.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.images.image_formats import UnusableImage
from pipeline.data.images.opening import PADDED, unreadable
from pipeline.data.images.padding import PADDED_FORMATS, padded
from pipeline.data.images.png_chunks import essential_chunks

MAX_MISSING = 0.1
"""The largest part of a picture's pixels that may be missing."""
_BLOCK = 8  # pixels of JPEG and WebP that are decoded together
_MOST_SAMPLES = 2  # such blocks one above the other, where a format does not say
_END_OF_JPEG = b"\xff\xd9"

Opener = Callable[[BinaryIO], Image.Image]
Values = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


class Loaded(NamedTuple):
    """A picture in memory; truncated: a part was missing, and is filled."""

    image: Image.Image
    truncated: bool


def load(opener: Opener, stream: BinaryIO, *, salvage: bool = True) -> Loaded:
    """Decode a picture. opener: opens a stream, at the frame that is meant; called once more for each try.

    Raises:
        UnusableImage: `truncated` where too much is missing, or `unreadable`.
    """
    image: Image.Image | None = None
    try:
        image = opener(stream)
        image.load()
        if not image.info.get(PADDED):
            return Loaded(image, truncated=False)
        problem = UnusableImage("truncated")
    except MemoryError:
        raise
    except Exception as error:  # a file from anywhere may break Pillow in any way
        problem = unreadable(error)
    if not salvage or image is None:
        raise problem
    try:
        return _load_broken(opener, stream, image.format or "")
    except MemoryError:
        raise
    except UnusableImage as error:
        raise error if error.reason == "truncated" else problem from error
    except Exception as error:
        raise problem from error


def _load_broken(opener: Opener, stream: BinaryIO, format: str) -> Loaded:
    if format == "PNG":
        stream = essential_chunks(stream)
        with suppress(OSError, SyntaxError, ValueError, EOFError, UnusableImage):
            return Loaded(_loaded(opener(stream)), truncated=False)  # only what is said beside was wrong
    if format in ("JPEG", "MPO"):
        image, other = _two_jpegs(opener, stream)
        missing = _missing_blocks(image, other)
    elif format in PADDED_FORMATS:
        image, other = _two_padded(opener, stream, format)
        missing = _missing_blocks(image, other)
    else:
        if format == "GIF":  # whose last block is decoded when it is whole
            data = _read(stream)
            image, other = (_over(opener, io.BytesIO(data + bytes([v]) * 256), v) for v in (0, 255))
        else:
            image, other = (_over(opener, stream, v) for v in (0, 255))
        missing = _differs(image, other)
    if missing.mean() > MAX_MISSING:
        raise UnusableImage("truncated", f"{missing.mean():.0%} of the pixels are missing")
    return Loaded(_filled(image, missing) if missing.any() else image, truncated=True)


def _read(stream: BinaryIO) -> bytes:
    stream.seek(0)
    return stream.read()


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    return image


def _two_padded(opener: Opener, stream: BinaryIO, format: str) -> list[Image.Image]:
    """A file that is filled to its length in two ways; not every filling can be decoded."""
    found: list[Image.Image] = []
    for byte in (b"\0", b"\xff", b"\x55", b"\xaa", b"\x0f", b"\xf0", b"\x33"):
        whole = padded(stream, format, byte)
        if whole is None:
            break
        try:
            found.append(_loaded(opener(whole)))
        except MemoryError:
            raise
        except Exception:
            continue
        if len(found) == 2:
            return found
    raise UnusableImage("truncated")


def _over(opener: Opener, stream: BinaryIO, value: int) -> Image.Image:
    """What can be decoded, over a picture of nothing but `value`."""
    image: Any = opener(stream)
    prepare = image.load_prepare

    def prepare_filled() -> None:
        prepare()
        bands = len(image.getbands())
        image.im.paste(value if bands == 1 else (value,) * bands, (0, 0, *image.im.size))

    image.load_prepare = prepare_filled
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:
        if image.tile and image.format == "TIFF":
            image.tile = []
            image.load_end()  # turns it upright
        image.tile = []
    copied: Image.Image = image.copy()
    return copied


def _differs(image: Image.Image, other: Image.Image, more_than: int = 0) -> Mask:
    """bool (H,W): where two pictures differ, in any channel."""
    first, second = np.asarray(image), np.asarray(other)
    differs = np.abs(first.astype(np.float32) - second) > more_than
    return np.asarray(differs.any(2) if differs.ndim == 3 else differs, bool)


def _missing_blocks(image: Image.Image, other: Image.Image) -> Mask:
    """bool (H,W): everything from the first block on that differs by more than its edges.

    Blocks that come later may happen to be equal: a decoder gives up at the next restart.
    """
    differs = _differs(image, other, more_than=8)
    missing = np.zeros_like(differs)
    band = _BLOCK * max((layer[2] for layer in getattr(image, "layer", ())), default=_MOST_SAMPLES)
    for top in range(0, image.height, band):
        for left in range(0, image.width, _BLOCK):
            blocks = differs[top : top + band, left : left + _BLOCK]
            if any(blocks[row : row + _BLOCK].mean() > 0.25 for row in range(0, len(blocks), _BLOCK)):
                missing[top : top + band, left:] = True
                missing[top + band :] = True
                return missing
    return missing


def _filled(image: Image.Image, missing: Mask) -> Image.Image:
    """The picture with each missing pixel as the one beside it, in the row before."""
    filled = image.convert("L") if image.mode == "1" else image.copy()
    values: Values = np.array(filled)
    upwards = slice(None, None, -1 if missing[0].any() else 1)  # a BMP begins with its last row
    rows, gaps = values[upwards], missing[upwards]
    for row in range(1, len(rows)):
        rows[row][gaps[row]] = rows[row - 1][gaps[row]]
    filled.frombytes(values.tobytes())
    return filled


def _two_jpegs(opener: Opener, stream: BinaryIO) -> tuple[Image.Image, Image.Image]:
    """A JPEG with an end, and the same with noise before the end; equal if nothing that counts is missing."""
    data = _read(stream)
    end, scans = _scans(data)
    if scans == "lost":
        raise UnusableImage("truncated", "most of its details are missing")
    image = _loaded(opener(io.BytesIO(data[:end] + _END_OF_JPEG)))
    if scans == "complete":
        return image, image
    return image, _loaded(opener(io.BytesIO(data[:end] + _noise(data[:end]) + _END_OF_JPEG)))


def _noise(data: bytes) -> bytes:
    """What a JPEG might go on with, and does not: restarts too, if it has any."""
    # No byte of 255, which would start a marker.
    parts = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    if b"\xff\xdd" not in data:
        return parts.tobytes()
    last = max(range(8), key=lambda i: data.rfind(bytes((0xFF, 0xD0 + i))))
    if data.rfind(bytes((0xFF, 0xD0 + last))) < 0:
        last = -1
    return b"".join(
        part.tobytes() + bytes((0xFF, 0xD0 + (last + i) % 8)) for i, part in enumerate(parts, start=1)
    )


def _scans(data: bytes) -> tuple[int, str]:
    """Where the last whole segment of a JPEG ends, and how much its scans tell.

    A progressive one is `complete` if each frequency of its brightness has come once, `lost` if one has not
    even begun; all else is `begun`: some of the pixels may be missing.
    """
    first, end = -1, len(data)
    unseen, scan = set(range(64)), set[int]()
    for kind, at, length in _segments(data):
        unseen -= scan  # what is followed by another segment is whole
        scan = set()
        if at + length > len(data):
            end = at - 2
            break
        if kind == 0xC2:
            first = data[at + 8]
        if kind == 0xDA:
            count = data[at + 2]
            low, high, step = data[at + 3 + 2 * count : at + 6 + 2 * count]
            if first in list(data[at + 3 : at + 3 + 2 * count : 2]) and step >> 4 == 0:
                scan = set(range(low, high + 1))
    if first < 0:
        return end, "begun"
    return end, "complete" if not unseen else "begun" if unseen <= scan else "lost"


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments of a JPEG: marker, where its length is written, and that length."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:
        kind = data[at + 1] if at + 1 < len(data) else -1
        if kind in (0x00, 0xFF) or 0xD0 <= kind <= 0xD9:
            at += 1 if kind == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big") if at + 4 <= len(data) else 4
        yield kind, at + 2, length
        at += 2 + length
