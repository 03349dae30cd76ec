"""Samples that some other tool has made: a folder of PNGs or an npz, exactly as they are.

Owns: reading them, and what is refused. Refuses: changing a pixel: a resized, cropped or converted image
has another fid, so what does not fit is told instead.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.image_files import MAX_BYTES, Labels, Pixels
from pipeline.errors import DataError

PREFIX = "samples:"
_MODES = {1: "L", 3: "RGB"}
_ARRAYS = ("images", "arr_0")  # numpy.savez(file, images) calls it arr_0


def read_samples(path: Path, size: int, channels: int) -> tuple[Pixels, Labels | None]:
    """uint8 (N,size,size,channels) and int64 (N,) labels, or None where the npz has none.

    Raises:
        DataError: nothing there, damaged, of another size, mode or type, or all images are the same.
    """
    shape = (size, size, channels)
    if path.is_dir():
        images, labels = _folder(path, shape), None
    elif path.is_file():
        images, labels = _npz(path, shape)
    else:
        raise DataError("samples:PATH is a folder of PNGs or an npz", seen=str(path), fix="check the path")
    if len(images) < 2 or (images == images[0]).all():
        raise DataError(
            "samples differ from one another", seen=f"{len(images)} times the same image in {path}",
            fix="look at what drew them",
        )  # fmt: skip
    return images, labels


def _folder(root: Path, shape: tuple[int, int, int]) -> Pixels:
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() == ".png" and file.is_file())
    if not files:
        kinds = sorted({file.suffix for file in root.rglob("*") if file.is_file()})
        raise DataError(
            "a folder of samples holds PNGs", seen=f"{' '.join(kinds) or 'no file'} in {root}",
            fix="save them as PNG: a JPEG's losses are part of its fid",
        )  # fmt: skip
    _check_bytes((len(files), *shape))
    images = np.empty((len(files), *shape), np.uint8)
    for image, file in zip(images, files, strict=True):
        image[:] = _png(file, shape)
    return images


def _png(file: Path, shape: tuple[int, int, int]) -> Pixels:
    try:
        with Image.open(file, formats=("PNG",)) as image:
            found = (image.height, image.width, image.mode)
            if found == (*shape[:2], _MODES[shape[2]]):
                return np.asarray(image, np.uint8).reshape(shape)
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        raise DataError("every sample can be read", seen=f"{file}: {error}", fix="remove it") from error
    raise _other(f"{found[0]}x{found[1]} {found[2]} in {file}", shape)


def _npz(path: Path, shape: tuple[int, int, int]) -> tuple[Pixels, Labels | None]:
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as arrays:
            headers = {name: _header(archive, name) for name in (*_ARRAYS, "labels") if name in arrays}
            name = next((name for name in _ARRAYS if name in headers), None)
            if name is None:
                seen = f"{', '.join(arrays.files)[:200] or 'nothing'} in {path}"
                raise DataError("the npz has an array `images`", seen=seen, fix="name the array images")
            count = _check_images(*headers[name], shape, path)
            images = arrays[name].reshape(count, *shape)
            return images, _labels(arrays["labels"], count) if "labels" in headers else None
    except DataError:
        raise
    except Exception as error:  # a damaged zip fails in a dozen ways (zlib, lzma, BadZipFile, ...)
        fix = "write it with numpy.savez(file, images=...)"
        raise DataError(f"{path} is a readable npz", seen=str(error), fix=fix) from error


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype, read before anything is allocated: a small file may claim terabytes."""
    with archive.open(f"{name}.npy") as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    return shape, dtype


def _check_images(
    found: tuple[int, ...], dtype: np.dtype[Any], shape: tuple[int, int, int], path: Path
) -> int:
    """How many there are, if they are what they must be."""
    grey = shape[2] == 1 and len(found) == 3
    if dtype != np.uint8 or (found if not grey else (*found, 1))[1:] != shape:
        raise _other(f"{dtype} {found} in {path}", shape)
    _check_bytes(found)
    return found[0]


def _check_bytes(shape: tuple[int, ...]) -> None:
    wanted = int(np.prod([int(side) for side in shape], dtype=object))
    if wanted > MAX_BYTES:
        rule = f"samples take at most {MAX_BYTES // 2**30} GiB"
        raise DataError(rule, seen=f"{wanted / 2**30:.1f} GiB for {shape}", fix="give fewer")


def _labels(labels: np.ndarray, count: int) -> Labels:
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        seen = f"{labels.dtype} {labels.shape}"
        raise DataError(f"`labels` is integer ({count},)", seen=seen, fix="leave labels out")
    return labels.astype(np.int64)


def _other(seen: str, shape: tuple[int, int, int]) -> DataError:
    kind = "grey (PNG mode L)" if shape[2] == 1 else "RGB"
    return DataError(
        f"samples are uint8, {kind}, {shape[0]}x{shape[1]}, as the images of --data", seen=seen,
        fix="save them so: a conversion here would change the fid",
    )  # fmt: skip
