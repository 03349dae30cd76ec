"""The cache of prepared images: each data set is prepared once on a machine, by one process at a time."""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.options import DataOptions
from pipeline.data.preparing.preparation import PreparedImages, prepare
from pipeline.data.preparing.prepared import (
    GROUPS,
    IMAGES,
    LABELS,
    LARGE_BYTES,
    META,
    fingerprint,
    map_array,
    memory_bytes,
    read_meta,
)
from pipeline.data.source_types import RawImages
from pipeline.data.understood import Understood
from pipeline.errors import DataError
from pipeline.storage.folders import free_bytes
from pipeline.storage.readable import readable_memory

log = logging.getLogger(__name__)

ABANDONED_SEC = 24 * 3600.0
"""A folder that is being made, and in which nothing changes for so long, was left by a killed process."""


def open_prepared(folder: Path) -> PreparedImages | None:
    """The images prepared in `folder`; None if there are none or they are damaged.

    Files of another length are found at once. Of fewer than `LARGE_BYTES`, any other byte is found too.
    """
    try:
        meta = read_meta(folder)
        images = map_array(folder / IMAGES)
        labels, groups = (
            map_array(folder / name).copy() if meta[key] else None
            for name, key in ((LABELS, "labelled"), (GROUPS, "grouped"))
        )
        found = PreparedImages(
            images=images,
            train=meta["train"],
            labels=labels,
            groups=groups,
            classes=tuple(meta["classes"]),
            fingerprint=meta["fingerprint"],
            understood=Understood.from_dict(meta["understood"]),
        )
        _check(found, list(meta["shape"]))
        return found
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file fails in a dozen ways
        log.info(f"prepared images cannot be used ({type(error).__name__}): preparing them again: {folder}")
        return None


def _check(found: PreparedImages, shape: list[int]) -> None:
    images, train = found.images, found.train
    if list(images.shape) != shape or images.dtype != np.uint8:
        raise ValueError("images.npy has another shape than meta.json says")
    for part in (found.labels, found.groups):
        if part is not None and (part.shape != (len(images),) or part.dtype != np.int64):
            raise ValueError("labels.npy or groups.npy does not fit images.npy")
    if images.nbytes >= LARGE_BYTES:
        return
    labels = (None, None) if found.labels is None else (found.labels[:train], found.labels[train:])
    if fingerprint(images[:train], images[train:], *labels) != found.fingerprint:
        raise ValueError("the fingerprint is another")


def prepare_in(
    data: Path, name: str, raw: RawImages, options: DataOptions, where: str
) -> tuple[PreparedImages, Path | None]:
    """Prepare images in the folder `name` of `data`; "" = a folder named after what is in it.

    Where another process prepares the same, its result is waited for. Returns the images and their folder,
    None where they had to stay in memory. What killed processes left in `data` is removed.

    Raises:
        DataError: there are too few images, too many are unreadable, or neither the disk nor the memory holds
            them.
    """
    partial = data / f".{name or _hashed(where, where)}.partial"
    remove_abandoned(data, ".*.partial")
    try:
        with _exclusive(partial):
            if name and (found := open_prepared(data / name)):
                return found, data / name
            return _prepare_on_disk(partial, data, name, _fresh(raw), options, where)
    except OSError as error:
        size = int(np.prod(raw.images.shape))
        if size > memory_bytes() / 2:
            problem, rule = (
                f"the images cannot be prepared in {data}: {{seen}}",
                "they do not fit in memory either",
            )
            need = f"{readable_memory(size)} are needed, {readable_memory(free_bytes(data))} are free"
            fix = f"free {data}, name a folder on another disk by GANSWEEP_CACHE, or lower --image-size"
            raise DataError(
                problem, rule=rule, seen=f"{error.strerror or error} ({need})", fix=fix
            ) from error
        log.info(f"the prepared images are not cached: {error}")
    return prepare(_fresh(raw), options, where, None), None


def link_prepared(folder: Path, name: str) -> None:
    """Let the prepared `folder` be found under another name too; nothing where that exists."""
    with contextlib.suppress(OSError):  # it only saves time
        folder.with_name(name).symlink_to(folder.name)


def copy_prepared(folder: Path, wanted: str, read: Callable[[str], Iterable[bytes]]) -> PreparedImages:
    """The images with the fingerprint `wanted`, prepared in `folder`: from the files of another, if need be.

    Where another process makes the same, it is waited for. read: the pieces of a file by its name; none where
    there is no such file.

    Raises:
        OSError: the disk has no room for it, or the other folder is not whole.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    remove_abandoned(folder.parent, ".*.partial")
    with _exclusive(partial):
        if (found := open_prepared(folder)) and found.fingerprint == wanted:
            return found
        for name in (IMAGES, LABELS, GROUPS, META):
            pieces = iter(read(name))
            if first := next(pieces, b""):
                with (partial / name).open("xb") as stream:
                    stream.write(first)
                    for piece in pieces:
                        stream.write(piece)
        found = open_prepared(partial)
        if found is None or found.fingerprint != wanted:
            problem = "the sweep's prepared images have gone or are damaged; a resume prepares them again"
            raise FileNotFoundError(errno.ENOENT, problem, folder.name)
        _move(partial, folder)
    return found


def remove_abandoned(parent: Path, pattern: str) -> None:
    """Remove the folders in `parent` that killed processes left."""
    for folder in parent.glob(pattern):
        with contextlib.suppress(OSError):  # another process removes it, or still makes it
            changed = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            if time.time() - changed > ABANDONED_SEC:
                shutil.rmtree(folder)


def _fresh(raw: RawImages) -> RawImages:
    return replace(raw, findings=copy.deepcopy(raw.findings))


def _prepare_on_disk(
    partial: Path, data: Path, name: str, raw: RawImages, options: DataOptions, where: str
) -> tuple[PreparedImages, Path]:
    found = prepare(raw, options, where, partial)
    meta: dict[str, Any] = {
        "shape": list(found.images.shape),
        "train": found.train,
        "labelled": found.labels is not None,
        "grouped": found.groups is not None,
        "classes": list(found.classes),
        "fingerprint": found.fingerprint,
        "understood": found.understood.to_dict(),
    }
    for file, values in ((LABELS, found.labels), (GROUPS, found.groups)):
        if values is not None:
            np.save(partial / file, values, allow_pickle=False)
    (partial / META).write_text(json.dumps(meta), encoding="utf-8")
    folder = data / (name or _hashed(where, json.dumps(meta)))
    if not name and (same := open_prepared(folder)):  # others may be opening it
        return same, folder
    _move(partial, folder)
    return found, folder


def _hashed(where: str, content: str) -> str:
    return f"{where.partition(':')[0]}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _move(partial: Path, folder: Path) -> None:
    """Put the finished folder in its place, where a damaged one may be."""
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(partial, folder)


@contextlib.contextmanager
def _exclusive(partial: Path) -> Iterator[None]:
    """Make the folder `partial`, empty, and hold its lock during the block; it is gone after an error.

    What a killed process left in it is removed. Where the file system has no locks, none is held.
    """
    while True:
        partial.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(descriptor, partial)
            if not _is_same(descriptor, partial):  # its last holder has finished and renamed it
                continue
            try:
                for left in partial.iterdir():
                    left.unlink()
                yield
                return
            finally:
                if _is_same(descriptor, partial):
                    shutil.rmtree(partial, ignore_errors=True)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, partial: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info(f"another process prepares these images: waiting for it ({partial})")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # no locks on this file system: two processes may prepare the same, one after the other
        pass


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
