"""Prepared images on disk: one memory-mapped file per data set, which every process of a machine shares.

A prepared folder holds `images.npy`, uint8 (N,S,S,C): the training images, then those held out; `labels.npy`
and `groups.npy`, int64 (N,), in the same order, where there are labels or copies; and `meta.json`, written
last. It is made under another name and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import mmap
import os
import zlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.source_types import Labels, Pixels

log = logging.getLogger(__name__)

BLOCK_BYTES = 16 * 2**20
"""Images are read and written in blocks of about so many bytes."""
DIRECT_BYTES = 2**30
"""From this size on a file is written past the page cache."""
_HEAD_BYTES = 4096
LARGE_BYTES = 256 * 2**20
"""The fingerprint of fewer bytes is computed again whenever prepared images are opened."""
IMAGES, LABELS, GROUPS, META = "images.npy", "labels.npy", "groups.npy", "meta.json"


class Fingerprint:
    """16 hex digits of a SHA-256 over pixels, labels, shapes and split; without paths and class names.

    Pixels are added block by block in the order of a prepared file. From `LARGE_BYTES` on, the CRC-32 of each
    image stands for its pixels: a third of the time.
    """

    def __init__(self, train: int, held: int, shape: tuple[int, ...]) -> None:
        """train, held: how many images of `shape` (S,S,C) there are."""
        self._large = (train + held) * math.prod(shape) >= LARGE_BYTES
        self._digest = hashlib.sha256(_array_head("|u1", (train, *shape)))
        self._before_held, self._held_head = train, _array_head("|u1", (held, *shape))

    def add(self, images: Pixels) -> None:
        """Add the next images uint8 (n,S,S,C)."""
        train = images[: self._before_held] if self._before_held >= 0 else images
        self._update(train)
        if 0 <= self._before_held <= len(images):
            self._digest.update(self._held_head)
            self._update(images[self._before_held :])
            self._before_held = -1
        elif self._before_held > 0:
            self._before_held -= len(images)

    def finish(self, train_labels: Labels | None, held_labels: Labels | None) -> str:
        """The fingerprint, after the last images."""
        for labels in (train_labels, held_labels):
            self._digest.update(b"none" if labels is None else _array_head(labels.dtype.str, labels.shape))
            if labels is not None:
                self._digest.update(np.ascontiguousarray(labels).data)
        return self._digest.hexdigest()[:16]

    def _update(self, images: Pixels) -> None:
        images = np.ascontiguousarray(images)
        if self._large:
            self._digest.update(b"".join(zlib.crc32(image).to_bytes(4, "little") for image in images))
        else:
            self._digest.update(images.data)


def _array_head(dtype: str, shape: tuple[int, ...]) -> bytes:
    return f"{dtype} {shape}".encode()


def fingerprint(train: Pixels, held: Pixels, train_labels: Labels | None, held_labels: Labels | None) -> str:
    """The `Fingerprint` of a data set whose images are at hand."""
    found = Fingerprint(len(train), len(held), train.shape[1:])
    for images in (train, held):
        for rows in blocks(len(images), images[:1].nbytes):
            found.add(images[rows])
    return found.finish(train_labels, held_labels)


def blocks(count: int, item_bytes: int) -> Iterator[slice]:
    """Slices of 0..count-1 of about `BLOCK_BYTES` each."""
    step = max(1, BLOCK_BYTES // max(1, item_bytes))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


class ImageFile:
    """An `images.npy` that is being written, from the first image on.

    A large one goes past the page cache, where the disk allows it: to find pages for it would take as long as
    to decode the images.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        """Raises OSError where the disk has no room for it."""
        self._path, self._size = path, _HEAD_BYTES + int(np.prod(shape))
        self._stream = _create(path, direct=self._size >= DIRECT_BYTES)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._stream.fileno(), 0, self._size)
        self._buffer: Pixels = np.frombuffer(mmap.mmap(-1, BLOCK_BYTES), np.uint8)  # aligned to pages
        self._filled = self._written = 0
        self._add(np.frombuffer(_npy_head(shape), np.uint8))

    def append(self, images: Pixels) -> None:
        """Write the next images uint8 (n,S,S,C)."""
        self._add(np.ascontiguousarray(images).reshape(-1))

    def close(self) -> Pixels:
        """Everything is on the disk now; the images, memory-mapped."""
        self._write(-(-self._filled // mmap.PAGESIZE) * mmap.PAGESIZE)
        with self._stream:
            self._stream.truncate(self._size)
            os.fsync(self._stream.fileno())
        return map_array(self._path)

    def _add(self, data: Pixels) -> None:
        start = 0
        while start < len(data):
            count = min(len(data) - start, BLOCK_BYTES - self._filled)
            self._buffer[self._filled : self._filled + count] = data[start : start + count]
            self._filled, start = self._filled + count, start + count
            if self._filled == BLOCK_BYTES:
                self._write(BLOCK_BYTES)

    def _write(self, count: int) -> None:
        """Write so much of the buffer, a multiple of the page size."""
        left = self._buffer[:count]
        while len(left):
            done = os.pwrite(self._stream.fileno(), left.data, self._written)
            self._written, left = self._written + done, left[done:]
        self._filled = 0


def _create(path: Path, *, direct: bool) -> FileIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    if direct and hasattr(os, "O_DIRECT"):
        with contextlib.suppress(OSError):  # not on this file system
            return FileIO(os.open(path, flags | os.O_DIRECT, 0o666), "r+b")
    return FileIO(os.open(path, flags, 0o666), "r+b")


def _npy_head(shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file, version 1.0, that ends with a page."""
    text = str({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    magic = np.lib.format.magic(1, 0)
    length = _HEAD_BYTES - len(magic) - 2
    return magic + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"


class ImageMemory:
    """In the place of an `ImageFile` where there is no room on the disk."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self._images, self._count = np.empty(shape, np.uint8), 0

    def append(self, images: Pixels) -> None:
        """As `ImageFile.append`."""
        self._images[self._count : self._count + len(images)] = images
        self._count += len(images)

    def close(self) -> Pixels:
        """The images."""
        return self._images


def replace_rows(images: Pixels, rows: Labels, values: Pixels, folder: Path | None) -> Pixels:
    """The images with `values` in `rows`; folder: where they lie as `images.npy`, None = in memory."""
    if folder is None:
        images[rows] = values
    else:
        target = np.lib.format.open_memmap(folder / IMAGES, mode="r+")
        target[rows] = values
        target.flush()
    return images


def map_array(path: Path) -> npt.NDArray[Any]:
    """A .npy file, memory-mapped and read-only; ValueError if it is damaged."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def read_meta(folder: Path) -> dict[str, Any]:
    """`meta.json` of a prepared folder; FileNotFoundError where there is none, ValueError if damaged."""
    found = json.loads((folder / META).read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("meta.json is no object")
    return found


def memory_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
