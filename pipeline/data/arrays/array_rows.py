"""Images of arrays as a network sees them: square, of one size, prepared a few at a time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.data.arrays.array_layout import PixelArray, block_length
from pipeline.data.findings import Findings
from pipeline.data.images.decoding import fit_square
from pipeline.data.images.encoded_images import thread_count
from pipeline.data.options import MIN_SIDE, DataOptions
from pipeline.data.pictures import to_picture
from pipeline.data.source_types import Labels, Pixels
from pipeline.errors import DataError

_AS_THEY_ARE = DataOptions()


class ArrayRows:
    """`ImageRows` over one array or several, one after another."""

    def __init__(
        self,
        pixels: Pixels | Sequence[PixelArray],
        options: DataOptions = _AS_THEY_ARE,
        findings: Findings | None = None,
    ) -> None:
        """pixels: uint8 (N,H,W) or (N,H,W,C) in 0..255, C = 1 or 3, also mapped from a file; or arrays of any
        layout whose shapes differ in N only. options: `size` 0 = as they are. findings: takes the guesses.

        Raises:
            DataError: they are smaller than `MIN_SIDE`, and no size is given.
        """
        self._parts = [PixelArray(pixels)] if isinstance(pixels, np.ndarray) else list(pixels)
        self._options = options
        _, height, width, channels = self._parts[0].shape
        side = max(height, width) if options.fit == "pad" else min(height, width)
        if side < MIN_SIDE and not options.size:
            rule = f"images must be at least {MIN_SIDE} pixels wide and high"
            fix = f"set image_size={MIN_SIDE} or more"
            raise DataError("the images are too small: {seen}", rule=rule, seen=f"{side} pixels", fix=fix)
        if height != width and findings is not None and options.fit == "crop":
            findings.note(
                f"images: of {height}x{width} pixels the central {side}x{side} are used;"
                " --fit pad or stretch keeps all of them"
            )
        size = options.size or side
        self._starts = np.cumsum([0, *(part.shape[0] for part in self._parts)])
        self.shape: tuple[int, int, int, int] = (int(self._starts[-1]), size, size, channels)

    def read(self, rows: Labels) -> tuple[Pixels, list[str]]:
        """The images `rows`, uint8 (n,size,size,C); every one can be read."""
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for part, start, end in zip(self._parts, self._starts, self._starts[1:], strict=False):
            here = np.flatnonzero((rows >= start) & (rows < end))
            step = block_length(part.array)  # what is read may be much larger than what becomes of it
            for some in (here[i : i + step] for i in range(0, len(here), step)):
                images[some] = fit_block(part.take(rows[some] - start), self.shape[1], self._options)
        return images, [""] * len(rows)

    def notes(self) -> list[str]:
        """Nothing: all guesses are made before."""
        return []


def fit_block(images: Pixels, size: int, options: DataOptions) -> Pixels:
    """Images uint8 (n,H,W,C) as (n,size,size,C), by `decoding.fit_square`."""
    height, width, channels = images.shape[1:]
    if options.fit == "crop" and size == min(height, width):
        top, left = (height - size) // 2, (width - size) // 2
        return images[:, top : top + size, left : left + size]
    if (height, width) == (size, size):
        return images
    colour, mode = options.background_colour, "L" if channels == 1 else "RGB"

    def fit(image: Pixels) -> Pixels:
        return fit_square(to_picture(image), size, options.fit, colour, mode)

    with ThreadPoolExecutor(thread_count()) as pool:
        return np.stack(list(pool.map(fit, images)))
