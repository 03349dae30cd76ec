"""Samples made by other tools: a folder of PNG files or an npz, read exactly as they are.

A resized, cropped or converted image has another fid. So nothing is converted here: samples of another size,
mode or type are refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.npz_files import read_npz
from pipeline.data.preprocessing import Header, Labels, Pixels, check_memory
from pipeline.errors import DataError

PREFIX = "samples:"
_MODES = {1: "L", 3: "RGB"}
_FEWER = "give fewer samples"


def read_samples(path: Path, size: int, channels: int) -> tuple[Pixels, Labels | None]:
    """Samples uint8 (N,size,size,channels) in 0..255, and int64 (N,) labels, or None if there are none.

    path: a folder of PNG files (sub-folders included), or an npz with `images` or `arr_0`, and perhaps
        `labels`. size, channels: of the data set's images.

    Raises:
        DataError: there is nothing, it is damaged, of another size, mode or type, or all images are the same.
    """
    shape = (size, size, channels)
    if path.is_dir():
        images, labels = _read_folder(path, shape), None
    elif path.is_file():
        images, labels = _read_npz(path, shape)
    else:
        rule = "samples:PATH is a folder of PNGs or an npz"
        raise DataError("there are no samples at {seen}", rule=rule, seen=str(path), fix="check the path")
    if len(images) < 2 or (images == images[0]).all():
        rule = "samples must differ from one another"
        fix = "check what generated them"
        seen = f"{len(images)} times the same image in {path}"
        raise DataError("the samples are all the same: {seen}", rule=rule, seen=seen, fix=fix)
    return images, labels


def _read_folder(root: Path, shape: tuple[int, int, int]) -> Pixels:
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() == ".png" and file.is_file())
    if not files:
        suffixes = sorted({file.suffix for file in root.rglob("*") if file.is_file()})
        rule = "a folder of samples must hold PNGs"
        fix = "save them as PNG: a JPEG's losses are part of its fid"
        seen = f"{' '.join(suffixes) or 'no file'} in {root}"
        raise DataError("there are no PNGs: {seen}", rule=rule, seen=seen, fix=fix)
    check_memory((len(files), *shape), fix=_FEWER)
    images = np.empty((len(files), *shape), np.uint8)
    for image, file in zip(images, files, strict=True):
        image[:] = _read_png(file, shape)
    return images


def _read_png(file: Path, shape: tuple[int, int, int]) -> Pixels:
    try:
        with Image.open(file, formats=("PNG",)) as image:
            found = (image.height, image.width, image.mode)
            if found == (*shape[:2], _MODES[shape[2]]):
                return np.asarray(image, np.uint8).reshape(shape)
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        rule, fix = "every sample must be a PNG", "remove it"
        raise DataError("a sample cannot be read", rule=rule, seen=f"{file}: {error}", fix=fix) from error
    raise _wrong_format(f"{found[0]}x{found[1]} {found[2]} in {file}", shape)


def _read_npz(path: Path, shape: tuple[int, int, int]) -> tuple[Pixels, Labels | None]:
    def check(header: Header) -> None:
        found, dtype = header
        given = (*found, 1) if shape[2] == 1 and len(found) == 3 else found
        if dtype != np.uint8 or given[1:] != shape:
            raise _wrong_format(f"{dtype} {found} in {path}", shape)
        check_memory(found, fix=_FEWER)

    images, labels = read_npz(path, ("images", "arr_0"), check)  # numpy.savez(file, images) calls it arr_0
    return images.reshape(len(images), *shape), labels


def _wrong_format(seen: str, shape: tuple[int, int, int]) -> DataError:
    kind = "grey (PNG mode L)" if shape[2] == 1 else "RGB"
    problem = "the samples have another format than the data set: {seen}"
    rule = f"samples must be uint8, {kind}, {shape[0]}x{shape[1]}, as the images of --data"
    return DataError(problem, rule=rule, seen=seen, fix="save them in it: a conversion here changes the fid")
