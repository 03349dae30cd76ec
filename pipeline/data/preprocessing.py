"""What is done to an image before a network sees it, and the limits of a data set.

An image is turned upright (EXIF), cropped to its central square, composited over white where it is
transparent, reduced to 8 bits, and resized with an antialiased Lanczos filter. Nothing else is done to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from pipeline.data.pictures import to_picture
from pipeline.errors import DataError
from pipeline.storage.readable import readable_memory

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

MIN_IMAGES = 64
MIN_SIDE, MAX_SIDE = 8, 4096
MAX_BYTES = 16 * 2**30


class RawImages(NamedTuple):
    """The images of a source before the split: uint8 (N,H,W,C) in 0..255, C = 1 or 3.

    labels: int64 (N,), any values; None without labels. names: the class name of label value i; empty if
    there are none. skipped: how many unreadable images were left out.
    """

    images: Pixels
    labels: Labels | None = None
    names: Sequence[str] = ()
    skipped: int = 0


class SourceRequest(NamedTuple):
    """What is asked of a source.

    name: as it was written, `folder:PATH`. path: PATH, where the source takes one. size: side of the prepared
    images in pixels; 0 = as they are, or as the source chooses. downloads: the folder for what is downloaded.
    outputs: folders that may lie below PATH but hold no data, and what they are.
    """

    name: str
    path: Path
    size: int
    downloads: Path
    outputs: Mapping[Path, str] = MappingProxyType({})


class ImageSource(NamedTuple):
    """A source that has been found but not read.

    key: JSON values that determine the content: the same key means the same images. None = nothing does, so
    that they are read every time. read: reads and preprocesses the images; called if they are not cached.
    """

    key: Sequence[object] | None
    read: Callable[[], RawImages]


class Header(NamedTuple):
    """Shape and dtype of an array that is not loaded."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def too_few_images(count: int, what: str) -> DataError:
    """The error for fewer than `MIN_IMAGES` images; `what` says which were counted, and where."""
    rule, fix = f"a data set needs at least {MIN_IMAGES} images", "add images or check the path"
    return DataError("too few images: {seen}", rule=rule, seen=f"{count} {what}", fix=fix)


def check_images(found: Header | npt.NDArray[Any], where: str) -> None:
    """DataError unless it is uint8 (N,H,W), (N,H,W,1) or (N,H,W,3) that fits in memory."""
    shape = found.shape
    right = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if found.dtype != np.uint8 or not right or min(shape) < 1:
        rule = "`images` is uint8 (N,H,W), (N,H,W,1) or (N,H,W,3)"
        fix = "convert to uint8 0..255 with the channels last"
        seen = f"{found.dtype} {shape} in {where}"
        raise DataError("the array `images` is {seen}", rule=rule, seen=seen, fix=fix)
    check_memory(shape)


def check_labels(found: Header | npt.NDArray[Any], count: int, where: str) -> None:
    """DataError unless it is integer (count,)."""
    if found.dtype.kind not in "iu" or found.shape != (count,):
        rule = f"`labels` is integer ({count},)"
        fix = "write one integer per image, or leave labels out"
        seen = f"{found.dtype} {found.shape} in {where}"
        raise DataError("the array `labels` is {seen}", rule=rule, seen=seen, fix=fix)


def check_memory(shape: Sequence[int], *, fix: str = "use fewer images or a smaller image_size") -> None:
    """DataError where a uint8 array of this shape takes more than `MAX_BYTES`; call it before allocating."""
    size = math.prod(map(int, shape))
    if size > MAX_BYTES:
        problem = "the images are too large for memory: {seen}"
        rule = f"they may take at most {readable_memory(MAX_BYTES)}"
        raise DataError(problem, rule=rule, seen=f"{readable_memory(size)} for {tuple(shape)}", fix=fix)


def to_square(image: Image.Image, mode: str, size: int) -> Pixels:
    """Preprocess an image of any mode and size: uint8 (size,size,C) in 0..255.

    mode: `L` (C=1) or `RGB` (C=3).

    Raises:
        ValueError: the pixels are floating-point numbers.
    """
    upright = ImageOps.exif_transpose(image)
    side = min(upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    converted = to_8_bits(upright.crop((left, top, left + side, top + side)), mode)
    if side != size:
        converted = converted.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(converted, np.uint8).reshape(size, size, -1)


def to_8_bits(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image of any mode to `L` or `RGB` with 8 bits, transparent pixels over white.

    Raises:
        ValueError: the pixels are floating-point numbers.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        wide = np.asarray(image).astype(np.float64).clip(0, 65535)
        image = Image.fromarray(np.rint(wide / 257).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert(mode)


def fit_images(raw: RawImages, size: int) -> RawImages:
    """Crop the images of an array to squares and resize them to `size` pixels (0 = no resizing).

    Raises:
        DataError: they are smaller than `MIN_SIDE` and no size is given, or too large for memory.
    """
    side = min(raw.images.shape[1:3])
    left, top = (raw.images.shape[2] - side) // 2, (raw.images.shape[1] - side) // 2
    images = raw.images[:, top : top + side, left : left + side]
    if side < MIN_SIDE and not size:
        rule = f"images must be at least {MIN_SIDE} pixels wide and high"
        fix = f"set image_size={MIN_SIDE} or more"
        raise DataError("the images are too small: {seen}", rule=rule, seen=f"{side} pixels", fix=fix)
    if size in (0, side):
        return raw._replace(images=images)
    shape = (len(images), size, size, images.shape[3])
    check_memory(shape)
    resized = np.empty(shape, np.uint8)
    for i, image in enumerate(images):
        picture = to_picture(image)
        resized[i] = to_square(picture, picture.mode, size)
    return raw._replace(images=resized)
