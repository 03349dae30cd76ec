"""Image files of any format become upright pictures of 8 bits, grey or sRGB.

Files whose end is missing: see truncation.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.images.colour import GREY_MODES, TRANSPARENT, over, to_srgb
from pipeline.data.images.exif import orientation, turn
from pipeline.data.images.image_formats import (
    FORMATS,
    HEAD_BYTES,
    RAW_SUFFIXES,
    UnusableImage,
    not_an_image,
    sniff,
)
from pipeline.data.images.netpbm import read_netpbm, read_netpbm_header
from pipeline.data.images.opening import MAX_PIXELS, errors_as_reasons, open_image, raw_mode
from pipeline.data.images.plain_jpeg import plain_jpeg_head
from pipeline.data.images.tiff_arrays import count_pages, is_unknown_layout, read_tiff
from pipeline.data.images.truncation import load
from pipeline.data.images.wide_pixels import (
    WideValues,
    finite_range,
    kind_of,
    read_wide,
    to_8_bits,
    wide_kind,
)
from pipeline.data.pictures import is_drawing

_STACKS = frozenset(("GIF", "PNG", "WEBP", "AVIF", "TIFF"))  # an MPO is one photo with its thumbnails
_SUBFILE_TYPE, _WIDTH, _HEIGHT, _SAMPLE_BITS, _ORIENTATION, _PLANAR = 254, 256, 257, 258, 274, 284
_COPY_OR_MASK = 1 | 4

Colour = tuple[int, int, int]
Range = tuple[float, float]


@dataclass(frozen=True)
class ImageHeader:
    """What is known of a file before its pixels are decoded.

    format: one of `FORMATS`. width, height: of the upright picture. grey: it has no colour (a palette counts
    as colour). wide: "" for 8 bits a channel, else the kind whose values are scaled by the range of the whole
    set: `16-bit`, `32-bit`, `signed`, `float`. frames: of a stack or an animation, else 1. drawn: a sheet or
    chart of gansweep's. reader: who decodes it, `pillow`, `netpbm` or `tifffile`. pages: where the frames lie
    in the file: a TIFF also has smaller copies.
    """

    format: str
    width: int
    height: int
    grey: bool
    wide: str = ""
    frames: int = 1
    drawn: bool = False
    reader: str = "pillow"
    pages: tuple[int, ...] = (0,)


class Decoded(NamedTuple):
    """A picture `L` or `RGB`; notes: what was special, as `truncated`, `CMYK`, `colour profile`."""

    picture: Image.Image
    notes: tuple[str, ...] = ()


@errors_as_reasons()
def read_header(stream: BinaryIO, name: str) -> ImageHeader:
    """The header of an image file: a seekable stream of bytes; name: of the file, for its suffix.

    Raises:
        UnusableImage: it is no image, or one that cannot be opened.
    """
    suffix = PurePath(name).suffix.lower()
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    format = sniff(head)
    if not format:
        raise not_an_image(head, suffix)
    if format == "TIFF" and suffix in RAW_SUFFIXES:
        format = "RAW"
    if format == "JPEG" and (plain := plain_jpeg_head(head)) and plain.width * plain.height <= MAX_PIXELS:
        return ImageHeader("JPEG", plain.width, plain.height, plain.components == 1)
    if format not in FORMATS:
        raise UnusableImage(f"format not supported: {format}", "convert it to PNG")
    if format == "PPM" and (header := _netpbm_header(stream)):
        return header
    try:
        image = open_image(stream, format)
    except UnusableImage:
        if format != "TIFF" or not is_unknown_layout(stream):
            raise
        return _tiff_header(stream)
    if format == "TIFF" and _is_wide_planes(image):
        return _tiff_header(stream)
    width, height = _upright_size(image)
    grey, wide, drawn = image.mode in GREY_MODES, wide_kind(image), is_drawing(image)
    grey = grey or raw_mode(image).startswith("LA;16")
    pages = tuple(_frames(image))
    return ImageHeader(format, width, height, grey, wide, len(pages), drawn, pages=pages)


@errors_as_reasons()
def value_range(stream: BinaryIO, header: ImageHeader, frames: Sequence[int] = (0,)) -> Range:
    """The least and the largest finite value of a wide image's `frames`.

    Raises:
        UnusableImage: it cannot be read, or no value is a finite number.
    """
    found = [finite_range(_wide_values(stream, header, frame).values) for frame in frames]
    ranges = [pair for pair in found if pair]
    if not ranges:
        raise UnusableImage("no finite pixel")
    return min(low for low, _ in ranges), max(high for _, high in ranges)


@errors_as_reasons()
def decode(
    stream: BinaryIO,
    header: ImageHeader,
    *,
    frame: int = 0,
    background: Colour = (255, 255, 255),
    value_range: Range | None = None,
) -> Decoded:
    """One frame as a picture `L` or `RGB` of 8 bits: upright, in sRGB, transparent pixels over `background`.

    value_range: of the values of a wide image: (0, 65535) where None and `16-bit`, else its own.

    Raises:
        UnusableImage: it is broken, or `truncated`: too much of it is missing.
    """
    if header.reader == "pillow" and not header.wide:
        loaded = load(lambda s: _open_at(s, header, frame), stream, salvage=frame == 0)
        image, truncated = loaded.image, loaded.truncated
        picture, notes = to_srgb(image, background)
        way_up = orientation(image)
    else:
        wide = _wide_values(stream, header, frame)
        low_high = value_range or _own_range(wide, header)
        picture, notes = to_8_bits(wide.values, low_high), ()
        truncated, way_up = wide.truncated, wide.way_up
        if wide.alpha is not None:
            notes = (TRANSPARENT,) if wide.alpha.min() < 255 else ()
            picture = over(picture, Image.fromarray(wide.alpha), background)
    return Decoded(turn(picture, way_up), (*notes, "truncated") if truncated else notes)


def fit_square(
    picture: Image.Image, size: int, fit: str, background: Colour, mode: str
) -> npt.NDArray[np.uint8]:
    """A picture `L` or `RGB` as uint8 (size,size,C) in 0..255, resized with an antialiased Lanczos filter.

    fit: `crop` its central square, `pad` it with `background`, or `stretch` it. mode: `L` or `RGB`.
    """
    width, height = picture.size
    side = min(width, height)
    if fit == "crop" and width != height:
        left, top = (width - side) // 2, (height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    if picture.mode != mode:
        picture = picture.convert(mode)
    shape = (size, size)
    if fit == "pad":
        scale = size / max(width, height)
        shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    if picture.size != shape:
        picture = picture.resize(shape, Image.Resampling.LANCZOS)
    if shape != (size, size):
        canvas = Image.new("RGB", (size, size), background).convert(mode)
        canvas.paste(picture, ((size - shape[0]) // 2, (size - shape[1]) // 2))
        picture = canvas
    return np.asarray(picture, np.uint8).reshape(size, size, -1)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    way_up, size = orientation(image), image.size
    if image.format == "TIFF":  # whose size Pillow turns by itself, at one time or another
        tags = getattr(image, "tag_v2")  # noqa: B009
        way_up, size = tags.get(_ORIENTATION, 1), (int(tags[_WIDTH]), int(tags[_HEIGHT]))
    return size[::-1] if way_up in (5, 6, 7, 8) else size


def _frames(image: Image.Image) -> list[int]:
    """The numbers of the frames of an opened picture that are images of their own."""
    if image.format not in _STACKS:
        return [0]
    try:
        count = int(getattr(image, "n_frames", 1))
        if image.format != "TIFF" or count == 1:
            return list(range(count))
        own = []
        for i in range(count):
            image.seek(i)
            if not int(getattr(image, "tag_v2").get(_SUBFILE_TYPE, 0)) & _COPY_OR_MASK:  # noqa: B009
                own.append(i)
        image.seek(0)
        return own or [0]
    except MemoryError:
        raise
    except Exception:  # a broken second frame does not take the first
        return [0]


def _open_at(stream: BinaryIO, header: ImageHeader, frame: int) -> Image.Image:
    image, page = open_image(stream, header.format), header.pages[frame]
    if page:
        try:
            image.seek(page)
        except EOFError as error:
            raise UnusableImage("truncated", f"image {page} is missing") from error
    if image.width * image.height > MAX_PIXELS:
        raise UnusableImage("too large", f"{image.width}x{image.height} pixels")
    return image


def _wide_values(stream: BinaryIO, header: ImageHeader, frame: int) -> WideValues:
    """The values of a frame."""
    if header.reader == "netpbm":
        netpbm = read_netpbm_header(stream)
        if netpbm is None:
            raise UnusableImage("unreadable", "its header changed")
        return WideValues(read_netpbm(stream, netpbm))
    if header.reader == "tifffile":
        values = read_tiff(stream, frame)
        if values.ndim == 2 or values.shape[2] == 3:
            return WideValues(values)
        alpha, top = values[..., -1], 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
        opaque = np.rint((alpha / top * 255).clip(0, 255)).astype(np.uint8)
        return WideValues(values[..., 0] if values.shape[2] == 2 else values[..., :3], opaque)
    return read_wide(lambda s: _open_at(s, header, frame), stream)


def _own_range(wide: WideValues, header: ImageHeader) -> Range:
    if header.wide in ("", "16-bit"):
        return (0.0, 65535.0) if header.wide else (0.0, 255.0)
    return finite_range(wide.values) or (0.0, 0.0)


def _netpbm_header(stream: BinaryIO) -> ImageHeader | None:
    """The header of a netpbm file that Pillow would read slowly or with a loss."""
    found = read_netpbm_header(stream)
    if not found or not found.wide:
        return None
    if found.width * found.height > MAX_PIXELS:
        raise UnusableImage("too large", f"{found.width}x{found.height} pixels, more than {MAX_PIXELS}")
    grey = found.channels == 1
    return ImageHeader("PPM", found.width, found.height, grey, found.wide, reader="netpbm")


def _tiff_header(stream: BinaryIO) -> ImageHeader:
    values = read_tiff(stream, 0)
    grey = values.ndim == 2 or values.shape[2] == 2
    height, width = values.shape[:2]
    frames = count_pages(stream)
    return ImageHeader("TIFF", width, height, grey, kind_of(values), frames, reader="tifffile")


def _is_wide_planes(image: Image.Image) -> bool:
    """Whether a TIFF has its colours one after the other in more than 8 bits, which Pillow misreads."""
    tags = getattr(image, "tag_v2")  # noqa: B009
    bits = tags.get(_SAMPLE_BITS, (8,))
    return tags.get(_PLANAR) == 2 and len(image.getbands()) > 1 and max(bits) > 8
