"""Images from a folder of image files; decoding of image files in parallel.

Only the formats in `FORMATS` are decoded. Files that cannot be read are left out and counted, up to a tenth.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import compress
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.folder_walk import FolderWalk, printable
from pipeline.data.pictures import is_drawing
from pipeline.data.preprocessing import (
    MIN_IMAGES,
    ImageSource,
    Labels,
    RawImages,
    SourceRequest,
    check_memory,
    to_square,
    too_few_images,
)
from pipeline.errors import DataError

log = logging.getLogger(__name__)

SIZES = (8, 16, 28, 32, 64, 128, 256)
"""Of these the size of a folder's images is chosen."""
MAX_PIXELS = 89_478_485  # Pillow's own warning level (a quarter GiB of RGB)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
# Pillow would otherwise try every format it knows by content, Ghostscript's among them.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
GREY_MODES = frozenset(("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"))
PROGRESS_SEC = 5.0


def folder_source(request: SourceRequest) -> ImageSource:
    """The image files below a folder, in the order of their names; classes are the first sub-folders.

    Folders of results are left out: `request.outputs`, and those that `result_folders` recognises.

    The key is made of the files' names, lengths and modification times; `read` opens them. Without a size
    one is chosen from `SIZES` by the median image.

    Raises:
        DataError: there is no such folder; from `read`: there are too few images, or too many are unreadable.
    """
    root, size = request.path, request.size
    if not os.path.isdir(root):
        rule = "folder:PATH names a folder"
        raise DataError("there is no folder {seen}", rule=rule, seen=str(root), fix="check the path")
    walk = FolderWalk(root, SUFFIXES, request.outputs)
    files, left_out = walk.files, walk.describe_left_out()
    if left_out:
        log.info(f"left out of the images: {left_out}")
    stats = [file.stat() if file.exists() else file.lstat() for file in files]
    names = [str(file.relative_to(root)) for file in files]
    rows = [(name, s.st_size, s.st_mtime_ns) for name, s in zip(names, stats, strict=True)]
    return ImageSource(["folder", str(root.resolve()), rows], lambda: _read_folder(walk, size))


def _read_folder(walk: FolderWalk, size: int) -> RawImages:
    root, files = walk.root, walk.files
    short, grey, drawn = (np.zeros(len(files), kind) for kind in (np.int64, bool, bool))

    def inspect(i: int) -> None:
        with _open(files[i]) as image:
            short[i], grey[i], drawn[i] = min(image.size), image.mode in GREY_MODES, is_drawing(image)

    reasons = _for_each(inspect, len(files), "looking at images")
    if drawn.any() and not drawn.all():  # a folder of nothing else was named on purpose
        names = [printable(files[i].name) for i in np.flatnonzero(drawn)]
        log.info(f"left out {len(names)} sheets and charts of gansweep's: {_first(names)}")
        files, reasons = list(compress(files, ~drawn)), list(compress(reasons, ~drawn))
        short, grey = short[~drawn], grey[~drawn]
    if len(files) < MIN_IMAGES:
        what, left_out = f"image files ({' '.join(SUFFIXES)}) in {root}", walk.describe_left_out()
        raise too_few_images(len(files), f"{what}, left out: {left_out}" if left_out else what)
    good = [i for i, reason in enumerate(reasons) if not reason]
    _check_unreadable(files, reasons)
    mode = "L" if grey[good].all() else "RGB"
    raw = decode_all(files, size or _choose_size(short[good]), mode, reasons)
    labels, names = _folder_labels(root, [f for f, why in zip(files, reasons, strict=True) if not why])
    return raw._replace(labels=labels, names=names)


def _choose_size(short: Labels) -> int:
    """The largest of `SIZES` up to the median of the images' shorter sides."""
    return max((size for size in SIZES if size <= np.median(short)), default=SIZES[0])


def _folder_labels(root: Path, files: list[Path]) -> tuple[Labels | None, list[str]]:
    """Labels and class names by first sub-folder, if every image is in one and there are at least two."""
    parts = [file.relative_to(root).parts for file in files]
    names = sorted({part[0] for part in parts})
    if len(names) < 2 or any(len(part) < 2 for part in parts):
        return None, []
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[part[0]] for part in parts], np.int64), [printable(name) for name in names]


def decode_all(files: list[Path], size: int, mode: str, reasons: list[str] | None = None) -> RawImages:
    """Decode and preprocess image files: uint8 (N,size,size,C) of the readable ones, without labels.

    mode: `L` (C=1) or `RGB` (C=3, or 1 if every image turns out to be grey). reasons: per file why it is
        already known to be unreadable, else ""; updated in place.

    Raises:
        DataError: more than a tenth of the files are unreadable, or the images do not fit in memory.
    """
    reasons = [""] * len(files) if reasons is None else reasons
    good = [i for i, reason in enumerate(reasons) if not reason]
    shape = (len(good), size, size, 1 if mode == "L" else 3)
    check_memory(shape)
    log.info(f"preparing {len(good)} images at {size}x{size}")
    images = np.empty(shape, np.uint8)

    def read(i: int) -> None:
        with _open(files[good[i]]) as image:
            images[i] = to_square(image, mode, size)

    for i, reason in enumerate(_for_each(read, len(good), "preparing images")):
        reasons[good[i]] = reason
    _check_unreadable(files, reasons)
    skipped = sum(map(bool, reasons))
    if skipped:
        log.warning(f"left out {skipped} unreadable images: {_examples(files, reasons)}")
        images = images[[not reasons[i] for i in good]]
    if mode == "RGB" and all(bool((image == image[..., :1]).all()) for image in images):
        images = np.ascontiguousarray(images[..., :1])  # grey pictures saved as colour
    return RawImages(images, skipped=skipped)


def _for_each(work: Callable[[int], None], total: int, what: str) -> list[str]:
    """Run `work(0)` .. `work(total - 1)` on threads; per call why it failed, "" if it did not."""

    def guarded(i: int) -> str:
        try:
            work(i)
        except Exception as error:  # a file from anywhere may break Pillow in any way
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return ""

    reasons: list[str] = []
    logged = time.monotonic()
    # Pillow decodes outside the GIL.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # Pillow's about single files; limits are checked in `_open`
        for start in range(0, total, 256):  # in blocks: bounded memory, and prompt when interrupted
            reasons.extend(pool.map(guarded, range(start, min(start + 256, total))))
            if time.monotonic() - logged >= PROGRESS_SEC:
                log.info(f"{what}: {len(reasons)} of {total}")
                logged = time.monotonic()
    return reasons


def _check_unreadable(files: list[Path], reasons: list[str]) -> None:
    bad = sum(map(bool, reasons))
    if bad > 0.1 * len(files):
        problem = "too many images are unreadable: {seen}"
        fix = f"repair or remove them: {_examples(files, reasons)}"
        raise DataError(problem, rule="at most 10 % of them", seen=f"{bad} of {len(files)}", fix=fix)


def _examples(files: list[Path], reasons: list[str]) -> str:
    named = [
        f"{printable(f.name)} ({reason[:80]})" for f, reason in zip(files, reasons, strict=True) if reason
    ]
    return _first(named)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _open(file: Path) -> Image.Image:
    image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS}")
    return image
