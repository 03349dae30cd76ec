"""Prepared images on disk: one memory-mapped file per data set, which every process of a machine shares.

A prepared folder holds `images.npy`, uint8 (N,S,S,C): the training images, then those held out; `labels.npy`
and `groups.npy`, int64 (N,), in the same order, where there are labels or copies; and `meta.json`, written
last. It is made under another name and renamed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.source_types import Labels, Pixels

log = logging.getLogger(__name__)

BLOCK_BYTES = 16 * 2**20
"""Images are read and written in blocks of about so many bytes."""
VERIFIED_BYTES = 256 * 2**20
"""Up to this size the fingerprint of prepared images is computed again whenever they are opened."""
IMAGES, LABELS, GROUPS, META = "images.npy", "labels.npy", "groups.npy", "meta.json"


class Fingerprint:
    """16 hex digits of a SHA-256 over pixels, labels, shapes and split; without paths and class names.

    Pixels are added block by block in the order of a prepared file.
    """

    def __init__(self, train: int, held: int, shape: tuple[int, ...]) -> None:
        """train, held: how many images of `shape` (S,S,C) there are."""
        self._digest = hashlib.sha256(_array_head("|u1", (train, *shape)))
        self._before_held, self._held_head = train, _array_head("|u1", (held, *shape))

    def add(self, images: Pixels) -> None:
        """Add the next images uint8 (n,S,S,C)."""
        part = images[: self._before_held] if self._before_held >= 0 else images
        self._digest.update(np.ascontiguousarray(part).data)
        if 0 <= self._before_held <= len(images):
            self._digest.update(self._held_head)
            self._digest.update(np.ascontiguousarray(images[self._before_held :]).data)
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
    """An `images.npy` that is being written, at any rows; its pages do not count as this process's memory."""

    def __init__(self, path: Path, shape: tuple[int, int, int, int]) -> None:
        """Raises OSError where the disk has no room for it."""
        self.path, self.shape, self._row = path, shape, int(np.prod(shape[1:]))
        self._stream = path.open("x+b")
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)
        self._offset = self._stream.tell()
        self._stream.flush()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._stream.fileno(), self._offset, max(1, shape[0] * self._row))

    def write(self, row: int, images: Pixels) -> None:
        """Write images uint8 (n,S,S,C) from `row` on."""
        self._stream.seek(self._offset + row * self._row)
        self._stream.write(np.ascontiguousarray(images).data)

    def close(self) -> Pixels:
        """Everything is on the disk now; the images, memory-mapped."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        return map_array(self.path)


class ImageMemory:
    """In the place of an `ImageFile` where there is no room on the disk."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self._images = np.empty(shape, np.uint8)

    def write(self, row: int, images: Pixels) -> None:
        """As `ImageFile.write`."""
        self._images[row : row + len(images)] = images

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
