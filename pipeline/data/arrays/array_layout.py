"""How an array holds images: where its channels are, and which range of values is black to white.

| dtype                  | values                    | read as                                               |
|------------------------|---------------------------|-------------------------------------------------------|
| uint8                  | 0..255                    | as they are; only 0 and 1: black and white            |
| bool                   |                           | black and white                                       |
| other integers, floats | within [0, 1], [-1, 1]    | that range                                            |
|                        | within [0, 255], over 127 | that range                                            |
|                        | any other                 | from their lowest (at most 0) to their highest value  |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.data.findings import Findings
from pipeline.data.source_types import Labels, Pixels
from pipeline.errors import DataError

Array = npt.NDArray[Any]
Range = tuple[float, float]

KNOWN_RANGES: tuple[Range, ...] = ((0, 1), (-1, 1), (0, 255))
BLOCK_BYTES = 64 * 2**20
"""Images are converted in blocks of about so many bytes of float64."""


class Header(NamedTuple):
    """Shape and dtype of an array that is not loaded."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


class Place(NamedTuple):
    """Where an array was found: its name, in which npz or npy file (None = another place), and in words."""

    name: str
    where: str
    file: Path | None = None

    def rewrite(self, expression: str, *, unpickle: bool = False) -> str:
        """The command that replaces the array by an expression of `A`, which stands for it."""
        if self.file is None:
            return f"return {expression.replace('A', self.name)}"
        load = f"np.load({str(self.file)!r}{', allow_pickle=True' if unpickle else ''})"
        if self.file.suffix == ".npy":
            return f"python -c \"import numpy as np; A = {load}; np.save('fixed.npy', {expression})\""
        value = expression.replace("A", f"a[{self.name!r}]")
        save = f"np.savez('fixed.npz', **{{**a, {self.name!r}: {value}}})"
        return f'python -c "import numpy as np; a = {load}; {save}"'


@dataclass(frozen=True, eq=False)
class PixelArray:
    """Images in an array of any layout and type, which become uint8 (n,H,W,C) a few at a time.

    array: (N,H,W), (N,H,W,C) with C = 1, 3 or 4 (transparency), or (N,C,H,W) if `channels_first`.
    value_range: what becomes 0 and 255; None = it is uint8 already. background: under transparent pixels.
    """

    array: Array
    channels_first: bool = False
    value_range: Range | None = None
    background: tuple[int, int, int] = (255, 255, 255)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C), C = 1 or 3."""
        n, *rest = self.array.shape
        height, width = rest[-2:] if self.channels_first else rest[:2]
        channels = 1 if len(rest) == 2 else rest[0 if self.channels_first else 2]
        return n, height, width, min(channels, 3)

    @property
    def transparent(self) -> bool:
        """Whether there is a fourth channel."""
        return self.array.ndim == 4 and not self.channels_first and self.array.shape[3] == 4

    def take(self, rows: Labels) -> Pixels:
        """The images `rows`, uint8 (n,H,W,C) in 0..255."""
        pixels: Array = self.stored(rows)
        if self.value_range is not None:
            pixels = np.rint(self.scaled(pixels)).clip(0, 255).astype(np.uint8)
        return _compose(pixels, self.background) if self.transparent else pixels

    def stored(self, rows: Labels) -> Array:
        """The images `rows` with their own values, (n,H,W,C) with C = 1, 3 or 4."""
        found = np.asarray(self.array[rows])
        if found.ndim == 3:
            return found[..., None]
        return found.transpose(0, 2, 3, 1) if self.channels_first else found

    def scaled(self, values: Array) -> npt.NDArray[np.float64]:
        """Values of `value_range` as floats in 0..255, not rounded."""
        low, high = self.value_range or (0, 255)
        scaled: npt.NDArray[np.float64] = (values.astype(np.float64) - low) * (255 / (high - low))
        return scaled


def understand_pixels(
    arrays: Sequence[tuple[Place, Array]], background: tuple[int, int, int], findings: Findings
) -> list[PixelArray]:
    """The arrays of one set of images (its training part, its test part) with one layout and range for all.

    Guesses go to `findings`.

    Raises:
        DataError: a layout is ambiguous or of another kind, the parts differ, or values are not finite.
    """
    headers = [(place, Header(array.shape, array.dtype)) for place, array in arrays]
    first_place, first = headers[0]
    first_way = channels_are_first(first, first_place)
    for place, header in headers[1:]:
        way = channels_are_first(header, place)
        if way != first_way or header.shape[1:] != first.shape[1:] or header.dtype != first.dtype:
            rule = f"all parts are as `{first_place.name}`, {first}"
            fix = "convert them to one shape and dtype"
            raise DataError(f"the array `{place.name}` is {{seen}}", rule=rule, seen=str(header), fix=fix)
    value_range = _find_range(arrays, findings)
    pixels = [PixelArray(array, first_way, value_range, background) for _, array in arrays]
    if first_way:
        findings.note(
            f"images: {first.shape} is read as (N,C,H,W), channels first; transpose it if that is wrong"
        )
    if pixels[0].transparent:
        findings.note(
            "images: the fourth channel is read as transparency, over --background; drop it if that is wrong"
        )
    return pixels


# ---- layout


def looks_like_images(header: Header) -> bool:
    """Whether an array of any name may hold images."""
    return len(header.shape) in (3, 4) and header.dtype.kind in "buif" and min(header.shape) > 0


def channels_are_first(header: Header, place: Place) -> bool:
    """Whether it is (N,C,H,W), not (N,H,W) or (N,H,W,C).

    Raises:
        DataError: it is neither, or both.
    """
    shape, seen = header.shape, f"{header} in {place.where}"
    problem, rule = f"the array `{place.name}` is {{seen}}", "images are (N,H,W), (N,H,W,C) or (N,C,H,W)"
    if header.dtype.hasobject:
        rule, fix = "pickled objects are never read", place.rewrite("np.stack(A.tolist())", unpickle=True)
        raise DataError(problem, rule=rule, seen=seen, fix=f"if you trust it: {fix}")
    if header.dtype.kind not in "buif":
        raise DataError(problem, rule="pixels are numbers", seen=seen, fix=place.rewrite("A.astype('uint8')"))
    if 0 in shape or len(shape) == 3 and shape[2] <= 4 or len(shape) not in (3, 4):
        raise DataError(problem, rule=rule, seen=seen, fix=_repair_shape(shape, place))
    if len(shape) == 3:
        return False
    last, first = shape[3] in (1, 3, 4), shape[1] in (1, 3)
    if last and first:
        problem += f", with {shape[1]} or {shape[3]} channels"
    if last == first:
        raise DataError(problem, rule=rule, seen=seen, fix=_repair_shape(shape, place))
    return first


def _repair_shape(shape: tuple[int, ...], place: Place) -> str:
    if 0 in shape:
        return "write images into it"
    if len(shape) == 2:
        planes = next(
            (c for c in (1, 3) if shape[1] % c == 0 and math.isqrt(shape[1] // c) ** 2 * c == shape[1]), 0
        )
        side = math.isqrt(shape[1] // planes) if planes else 0
        return place.rewrite(f"A.reshape(-1, {planes}, {side}, {side})" if side else "A.reshape(-1, H, W)")
    if len(shape) == 4 and shape[2] in (1, 3) and shape[1] > 4 < shape[3]:
        return place.rewrite("A.transpose(3, 0, 1, 2)")
    if len(shape) == 4 and shape[1] == 4 < shape[2]:
        return place.rewrite("A[:, :3]")
    if len(shape) == 4 and shape[3] == 2:
        return place.rewrite("A[..., 0]")
    if len(shape) == 4 and min(shape) > 4:  # volumes
        return place.rewrite(f"A[:, {shape[1] // 2}]")
    if len(shape) == 5:
        return place.rewrite("A.reshape(-1, *A.shape[2:])")
    return "write (N,H,W,C) with N images of at least 8x8"


# ---- range of values


def _find_range(arrays: Sequence[tuple[Place, Array]], findings: Findings) -> Range | None:
    place, first = arrays[0]
    if first.dtype == np.uint8 and first[: block_length(first)].max() > 1:
        return None
    low, high = math.inf, -math.inf
    for place, array in arrays:
        for block in blocks_of(array):
            low, high = min(low, float(block.min())), max(high, float(block.max()))
            if not math.isfinite(high - low):
                rule, seen = (
                    "pixels are finite numbers",
                    f"{array.dtype} with values nan or infinite in {place.where}",
                )
                fix = place.rewrite("np.nan_to_num(A)")
                raise DataError(f"the array `{place.name}` is {{seen}}", rule=rule, seen=seen, fix=fix)
            if array.dtype == np.uint8 and high > 1:
                return None
    if first.dtype == np.uint8 and high == 0:
        return None
    chosen = _choose_range(first.dtype, low, high)
    findings.note(
        f"images: {first.dtype.name} from {low:g} to {high:g} is read as [{chosen[0]:g}, {chosen[1]:g}];"
        " convert it to uint8 if that is wrong"
    )
    return chosen


def _choose_range(dtype: np.dtype[Any], low: float, high: float) -> Range:
    if dtype.kind == "b" or (low >= 0 and high <= 1):
        return 0, 1
    if low >= -1 and high <= 1:
        return -1, 1
    if low >= 0 and 127 < high <= 255:
        return 0, 255
    return min(low, 0), high if high > min(low, 0) else high + 1


def block_length(array: Array) -> int:
    """How many images of an array (N,...) are converted at once."""
    return max(1, BLOCK_BYTES // max(1, 8 * math.prod(array.shape[1:])))


def blocks_of(array: Array) -> Iterator[Array]:
    """The images of an array (N,...), a block at a time."""
    step = block_length(array)
    for start in range(0, len(array), step):
        yield np.asarray(array[start : start + step])


def _compose(pixels: Pixels, background: tuple[int, int, int]) -> Pixels:
    """uint8 (n,H,W,4) over a colour: uint8 (n,H,W,3); opaque pixels keep their bytes."""
    colours, alpha = pixels[..., :3].astype(np.float32), pixels[..., 3:].astype(np.float32) / 255
    below = np.array(background, np.float32)
    return np.rint(colours * alpha + below * (1 - alpha)).astype(np.uint8)
