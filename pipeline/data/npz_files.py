"""Images from an npz file with an array `images`, and perhaps `labels`. Nothing is ever unpickled."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.data.preprocessing import (
    Header,
    ImageSource,
    Labels,
    Pixels,
    RawImages,
    SourceRequest,
    check_images,
    check_labels,
    fit_images,
)
from pipeline.errors import DataError


def npz_source(request: SourceRequest) -> ImageSource:
    """An npz with `images`, uint8 (N,H,W) or (N,H,W,1 or 3), and perhaps `labels`, integer (N,).

    The key is made of the file's path, length and modification time; `read` opens the file.

    Raises:
        DataError: there is no such file; from `read`: it is damaged, or its arrays are of another kind.
    """
    path, size = request.path, request.size
    if not os.path.isfile(path):
        rule = "npz:PATH names a file"
        raise DataError("there is no file {seen}", rule=rule, seen=str(path), fix="check the path")
    stat = path.stat()
    key = ["npz", str(path.resolve()), stat.st_size, stat.st_mtime_ns]

    def read() -> RawImages:
        images, labels = read_npz(path, ("images",), lambda header: check_images(header, str(path)))
        return fit_images(RawImages(images if images.ndim == 4 else images[..., None], labels), size)

    return ImageSource(key, read)


def read_npz(
    path: Path, names: Sequence[str], check: Callable[[Header], None]
) -> tuple[Pixels, Labels | None]:
    """The images of an npz, in the first of the arrays `names` that it has, and its int64 `labels` (N,).

    check: raises a DataError where the images are not those wanted; only then is memory allocated, because a
        small file may claim terabytes.

    Raises:
        DataError: the file is damaged, has no such array, or labels that are none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            stored = archive.namelist()
            found = [name for name in (*names, "labels") if f"{name}.npy" in stored]
            headers = {name: _header(archive, f"{name}.npy") for name in found}
        name = next(iter(found), "labels")
        if name == "labels":
            arrays = ", ".join(member.removesuffix(".npy") for member in stored)
            rule, seen = "it needs an array `images`", f"{arrays[:200] or 'nothing'} in {path}"
            raise DataError("no images in the npz: {seen}", rule=rule, seen=seen, fix="name the array images")
        check(headers[name])
        if "labels" in headers:
            check_labels(headers["labels"], headers[name].shape[0], str(path))
        with np.load(path, allow_pickle=False) as members:
            # Those whose headers were checked, not ones of the same name without suffix.
            labels = members["labels.npy"].astype(np.int64) if "labels" in headers else None
            return members[f"{name}.npy"], labels
    except DataError:
        raise
    except Exception as error:  # a damaged zip fails in a dozen ways (zlib, lzma, BadZipFile, ...)
        rule, fix = f"{path} must be an npz file", "write it with numpy.savez(file, images=..., labels=...)"
        raise DataError("the npz cannot be read: {seen}", rule=rule, seen=str(error), fix=fix) from error


def _header(archive: zipfile.ZipFile, name: str) -> Header:
    with archive.open(name) as member:
        if np.lib.format.read_magic(member) == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        else:  # only needed for structured types, which are refused anyway
            shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    return Header(shape, dtype)
