"""Images from an npz file with an array `images`, and perhaps `labels`. Nothing is ever unpickled."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.preprocessing import ImageSource, RawImages, check_memory, fit_images
from pipeline.errors import DataError

Header = tuple[tuple[int, ...], np.dtype[Any]]
"""Shape and dtype of an array."""


def npz_source(path: Path, size: int) -> ImageSource:
    """An npz with `images`, uint8 (N,H,W) or (N,H,W,1 or 3), and perhaps `labels`, integer (N,).

    The key is made of the file's path, length and modification time; `read` opens the file.

    Args:
        path: the file.
        size: side of the prepared images in pixels; 0 = as they are.

    Raises:
        DataError: there is no such file; from `read`: it is damaged, or its arrays are of another kind.
    """
    if not os.path.isfile(path):
        raise DataError(
            "there is no file {seen}", rule="npz:PATH names a file", seen=str(path), fix="check the path"
        )
    stat = path.stat()
    key = ["npz", str(path.resolve()), stat.st_size, stat.st_mtime_ns]
    return ImageSource(key, lambda: fit_images(_read_npz(path), size))


def npz_headers(path: Path, names: Iterable[str]) -> dict[str, Header]:
    """Headers of those of the arrays `names` that are in the file.

    Nothing is allocated, because a small file may claim terabytes.

    Raises:
        Exception: the file is damaged (zipfile and numpy raise many types).
    """
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for member_name in {f"{name}.npy" for name in names} & set(archive.namelist()):
            with archive.open(member_name) as member:
                version = np.lib.format.read_magic(member)
                if version == (1, 0):
                    shape, _, dtype = np.lib.format.read_array_header_1_0(member)
                else:  # only needed for structured types, which are refused anyway
                    shape, _, dtype = np.lib.format.read_array_header_2_0(member)
            headers[member_name.removesuffix(".npy")] = (shape, dtype)
    return headers


def damaged_npz(path: Path, error: Exception, arrays: str) -> DataError:
    """The error for an npz that cannot be read; `arrays` are the arguments that `numpy.savez` would take."""
    return DataError(
        "the npz cannot be read: {seen}",
        rule=f"{path} must be an npz file",
        seen=str(error),
        fix=f"write it with numpy.savez(file, {arrays})",
    )


def missing_images(seen: str) -> DataError:
    """The error for an npz without an array of images."""
    return DataError(
        "no images in the npz: {seen}",
        rule="it needs an array `images`",
        seen=seen,
        fix="name the array images",
    )


def _read_npz(path: Path) -> RawImages:
    try:
        headers = npz_headers(path, ("images", "labels"))
        _check_headers(path, headers)
        with np.load(path, allow_pickle=False) as arrays:
            # The members whose headers were checked, not ones of the same name without suffix.
            images = arrays["images.npy"]
            labels = arrays["labels.npy"].astype(np.int64) if "labels" in headers else None
    except DataError:
        raise
    except Exception as error:  # a damaged zip fails in a dozen ways (zlib, lzma, BadZipFile, ...)
        raise damaged_npz(path, error, "images=..., labels=...") from error
    return RawImages(images if images.ndim == 4 else images[..., None], labels)


def _check_headers(path: Path, headers: dict[str, Header]) -> None:
    if "images" not in headers:
        raise missing_images(str(path))
    shape, dtype = headers["images"]
    right = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if dtype != np.uint8 or not right or min(shape) < 1:
        raise DataError(
            "the array `images` is {seen}",
            rule="`images` is uint8 (N,H,W), (N,H,W,1) or (N,H,W,3)",
            seen=f"{dtype} {shape} in {path}",
            fix="convert to uint8 0..255 with the channels last",
        )
    check_memory(shape)
    if "labels" not in headers:
        return
    label_shape, label_dtype = headers["labels"]
    if label_dtype.kind not in "iu" or label_shape != shape[:1]:
        raise DataError(
            "the array `labels` is {seen}",
            rule=f"`labels` is integer ({shape[0]},)",
            seen=f"{label_dtype} {label_shape} in {path}",
            fix="write one integer per image, or leave labels out",
        )
