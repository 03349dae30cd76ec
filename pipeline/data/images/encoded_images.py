"""Many encoded images, from files, a zip or a table: looked at, brought to one size, decoded in blocks."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, TypeVar

import numpy as np

from pipeline.data.findings import Findings
from pipeline.data.images.colour import CONVERTED, IGNORED, TRANSPARENT
from pipeline.data.images.decoding import ImageHeader, Range, decode, fit_square, read_header, value_range
from pipeline.data.images.image_formats import UnusableImage, unopened
from pipeline.data.images.plain_jpeg import decode_plain_jpeg
from pipeline.data.options import DataOptions
from pipeline.data.source_types import Labels, Pixels

log = logging.getLogger(__name__)

SIZES = (8, 16, 28, 32, 64, 128, 256)
"""Of these the size of images in files is chosen."""
PROGRESS_SEC = 5.0
_BLOCK = 256

Opener = Callable[[str], BinaryIO]
"""A seekable stream of the encoded image of a name; called on several threads."""
T = TypeVar("T")


@dataclass(frozen=True)
class Looked:
    """What the files of some names hold: headers of the images, and why each other one gives none."""

    headers: Mapping[str, ImageHeader]
    unusable: Mapping[str, UnusableImage]


def look_at(names: Sequence[str], opener: Opener) -> Looked:
    """Read the headers of all files, on several threads."""

    def look(name: str) -> ImageHeader:
        with opener(name) as stream:
            return read_header(stream, name)

    headers: dict[str, ImageHeader] = {}
    unusable: dict[str, UnusableImage] = {}
    for name, found in zip(names, _map(look, names, "looking at files"), strict=True):
        if isinstance(found, UnusableImage):
            unusable[name] = found
        else:
            headers[name] = found
    return Looked(headers, unusable)


class EncodedRows:
    """`ImageRows` of encoded images: row i is frame `frames[i]` of the image `names[i]`.

    size: side in pixels. mode: `L` or `RGB`. ranges: of the values of wide images, by their kind.
    """

    def __init__(
        self,
        names: Sequence[str],
        frames: Sequence[int],
        looked: Looked,
        opener: Opener,
        options: DataOptions,
        size: int,
    ) -> None:
        """Raises UnusableImage if no image of a wide kind has a finite value."""
        self._names, self._frames, self._headers, self._opener = names, frames, looked.headers, opener
        self._fit, self._background = options.fit, options.background_colour
        self._background_name = options.background
        self._mode = "L" if all(looked.headers[name].grey for name in set(names)) else "RGB"
        self.shape = (len(names), size, size, 1 if self._mode == "L" else 3)
        self.ranges = _value_ranges(names, frames, looked, opener)
        self._noticed, self._lock = Counter[str](), threading.Lock()
        self._pool = ThreadPoolExecutor(thread_count())

    def read(self, rows: Labels) -> tuple[Pixels, list[str]]:
        """As `ImageRows.read`."""
        images = np.zeros((len(rows), *self.shape[1:]), np.uint8)

        def read(place: int) -> str:
            try:
                images[place], notes = self._decode(int(rows[place]))
            except MemoryError:
                raise
            except Exception as error:  # a file from anywhere may break a decoder in any way
                return str(error) or type(error).__name__
            if notes:
                with self._lock:
                    self._noticed.update(notes)
            return ""

        return images, list(self._pool.map(read, range(len(rows))))

    def notes(self) -> list[str]:
        """What was special about the images that were read: one line each."""
        over = f"shown over {self._background_name}; --background changes it"
        said = {
            "truncated": "end too early: the little that is missing is filled",
            "CMYK": "are CMYK: converted to RGB",
            "LAB": "are LAB: converted to RGB",
            CONVERTED: "have a colour profile: converted to sRGB",
            IGNORED: "have a colour profile that does not fit them: it is ignored",
            TRANSPARENT: f"have transparent pixels: {over}",
        }
        return [f"{count:,} images {said.get(note, note)}" for note, count in sorted(self._noticed.items())]

    def _decode(self, row: int) -> tuple[Pixels, tuple[str, ...]]:
        name, (size, _, channels) = self._names[row], self.shape[1:]
        header = self._headers[name]
        with self._opener(name) as stream:
            data = stream.read()
        if header.format == "JPEG" and header.width == header.height == size:
            pixels = decode_plain_jpeg(data, channels)
            if pixels is not None:
                return pixels, ()
        found = decode(
            BytesIO(data),
            header,
            frame=self._frames[row],
            background=self._background,
            value_range=self.ranges.get(header.wide),
        )
        return fit_square(found.picture, size, self._fit, self._background, self._mode), found.notes


def encoded_images(
    names: Sequence[str], looked: Looked, opener: Opener, options: DataOptions, findings: Findings
) -> tuple[EncodedRows, Labels]:
    """The images of `names`, and for each row the index int64 (N,) of its name.

    What is chosen for them (size, range, frames, fit) is noted in `findings`.
    """
    headers = [looked.headers[name] for name in names]
    size = options.size or choose_size(headers)
    counts = np.array([header.frames if options.frames == "all" else 1 for header in headers], np.int64)
    index = np.repeat(np.arange(len(names)), counts)
    frames = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = EncodedRows([names[i] for i in index.tolist()], frames.tolist(), looked, opener, options, size)
    for line in (
        *_size_notes(headers, size, options),
        *_frame_notes(headers, options),
        *_range_notes(rows, headers),
    ):
        findings.note(line)
    return rows, index.astype(np.int64)


def choose_size(headers: Sequence[ImageHeader]) -> int:
    """The largest of `SIZES` up to the median of the images' shorter sides."""
    median = np.median([min(header.width, header.height) for header in headers])
    return max((size for size in SIZES if size <= median), default=SIZES[0])


def _size_notes(headers: Sequence[ImageHeader], size: int, options: DataOptions) -> Iterator[str]:
    sides = Counter((header.width, header.height) for header in headers)
    (width, height), _ = sides.most_common(1)[0]
    if set(sides) != {(size, size)} and not options.size:
        many = f" and {len(sides) - 1:,} other sizes" if len(sides) > 1 else ""
        yield f"size: {width}x{height}{many} prepared at {size}x{size}; --image-size changes it"
    if oblong := sum(count for (w, h), count in sides.items() if w != h):
        how = {
            "crop": "their centre is used; --fit pad or --fit stretch uses all of them",
            "pad": f"padded with {options.background}",
            "stretch": "stretched",
        }
        yield f"{oblong:,} of {len(headers):,} images are not square: {how[options.fit]}"
    if small := sum(count for (w, h), count in sides.items() if min(w, h) < size):
        yield f"{small:,} of {len(headers):,} images are smaller than {size} px and are enlarged"


def _frame_notes(headers: Sequence[ImageHeader], options: DataOptions) -> Iterator[str]:
    stacks = [header.frames for header in headers if header.frames > 1]
    if stacks and options.frames == "all":
        yield f"{len(stacks):,} files are stacks or animations: all their {sum(stacks):,} images are used"
    elif stacks:
        yield (
            f"{len(stacks):,} files are stacks or animations: the first image of each is used; "
            f"--frames all uses all {sum(stacks):,}"
        )


def _range_notes(rows: EncodedRows, headers: Sequence[ImageHeader]) -> Iterator[str]:
    kinds = Counter(header.wide for header in headers if header.wide)
    for kind, count in kinds.items():
        low, high = rows.ranges[kind]
        yield f"{count:,} images have {kind} values: their range {low:g}..{high:g} becomes 0..255"


def _value_ranges(
    names: Sequence[str], frames: Sequence[int], looked: Looked, opener: Opener
) -> dict[str, Range]:
    """The range of all values of each kind of wide images."""
    used: dict[str, list[int]] = {}
    for name, frame in zip(names, frames, strict=True):
        if looked.headers[name].wide:
            used.setdefault(name, []).append(frame)

    def measure(name: str) -> Range:
        with opener(name) as stream:
            return value_range(BytesIO(stream.read()), looked.headers[name], used[name])

    ranges: dict[str, Range] = {looked.headers[name].wide: (0.0, 0.0) for name in used}
    known = set[str]()
    for name, found in zip(used, _map(measure, list(used), "looking for the range of values"), strict=True):
        if isinstance(found, UnusableImage):
            continue  # it is told when it is read
        kind = looked.headers[name].wide
        low, high = ranges[kind] if kind in known else found
        ranges[kind] = min(low, found[0]), max(high, found[1])
        known.add(kind)
    return ranges


def _map(work: Callable[[str], T], names: Sequence[str], what: str) -> Iterator[T | UnusableImage]:
    """`work` of each name on threads, in their order; a failure is the UnusableImage that tells it."""

    def guarded(name: str) -> T | UnusableImage:
        try:
            return work(name)
        except UnusableImage as error:
            return error
        except OSError as error:
            return unopened(error)
        except MemoryError:
            raise
        except Exception as error:  # a file from anywhere may break a decoder in any way
            return UnusableImage("unreadable", f"{type(error).__name__}: {error}"[:200])

    logged = time.monotonic()
    with warnings.catch_warnings(), ThreadPoolExecutor(thread_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow's about single files
        for start in range(0, len(names), _BLOCK):  # in blocks: prompt when interrupted
            yield from pool.map(guarded, names[start : start + _BLOCK])
            if time.monotonic() - logged >= PROGRESS_SEC:
                log.info(f"{what}: {start + _BLOCK:,} of {len(names):,}")
                logged = time.monotonic()


def thread_count() -> int:
    """How many threads decode or resize images: Pillow does both outside the GIL."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
