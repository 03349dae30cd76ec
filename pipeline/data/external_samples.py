"""Samples made by other tools: a folder or a zip of images, or an npz, read exactly as they are.

A resized, cropped or rounded image has another fid. So only what loses nothing is done: grey saved as RGB
counts as grey, a palette as its colours, opaque transparency is dropped. Anything else is refused.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from PIL import Image

from pipeline.data.arrays.array_labels import Classes
from pipeline.data.arrays.array_layout import KNOWN_RANGES, PixelArray, block_length, blocks_of
from pipeline.data.arrays.npz_files import read_npz
from pipeline.data.arrays.npz_members import array_headers
from pipeline.data.files.file_tree import ZipTree
from pipeline.data.files.ignored_names import reason_to_ignore
from pipeline.data.files.natural_order import natural_key
from pipeline.data.findings import Findings, printable
from pipeline.data.images import exif
from pipeline.data.images.image_formats import FORMATS, HEAD_BYTES, UnusableImage, not_an_image, sniff
from pipeline.data.images.opening import open_image
from pipeline.data.options import DataOptions
from pipeline.data.source_types import Labels, Pixels
from pipeline.errors import DataError
from pipeline.storage.readable import readable_memory

PREFIX = "samples:"
MAX_BYTES = 16 * 2**30
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000")


class Samples(NamedTuple):
    """images: uint8 (N,size,size,C) in 0..255. labels: int64 (N,), of the data's classes; None = unknown."""

    images: Pixels
    labels: Labels | None
    findings: Findings


class Wanted(NamedTuple):
    """The images of the data set that samples are compared with. classes: the names; empty without labels."""

    size: int
    channels: int
    classes: Sequence[str] = ()


def read_samples(path: Path, wanted: Wanted) -> Samples:
    """The samples below a folder (sub-folders included) or in a zip, or those of an npz or npy.

    Labels are those of the npz, or the first sub-folders, where all of them name classes of the data.

    Raises:
        DataError: there is nothing, it is damaged, of another size or kind, or all images are the same.
    """
    findings = Findings()
    if path.is_dir():
        images, labels = _read_folder(path, wanted, findings)
    elif not path.is_file() or path.suffix.lower() not in (".npz", ".npy", ".zip"):
        rule = "samples:PATH is a folder or a zip of images, or an npz"
        fix = "save them so" if path.is_file() else "check the path"
        raise DataError("there are no samples at {seen}", rule=rule, seen=str(path), fix=fix)
    elif _is_zip_of_images(path):
        images, labels = _read_tree(ZipTree(path, findings), wanted, findings)
    else:
        images, labels = _read_npz(path, wanted, findings)
    if len(images) < 2 or all(bool((block == images[0]).all()) for block in blocks_of(images)):
        rule = "samples must differ from one another"
        fix = "check what generated them"
        seen = f"{len(images)} times the same image in {path}"
        raise DataError("the samples are all the same: {seen}", rule=rule, seen=seen, fix=fix)
    return Samples(images, labels, findings)


def _different(seen: str, wanted: Wanted, *, height: int = 0, width: int = 0) -> DataError:
    """The error for samples of another size or kind. height, width: if the size is what differs."""
    kind = "grey" if wanted.channels == 1 else "8-bit RGB or grey"
    rule = f"samples must be {kind}, {wanted.size}x{wanted.size}, as the images of --data"
    fix = "save them so: a conversion here changes the fid"
    if height == width != 0:
        fix = f"measure them at their size with --image-size {height}, or {fix}"
    return DataError("the samples are of another kind than the data: {seen}", rule=rule, seen=seen, fix=fix)


def _to_channels(images: Pixels, wanted: Wanted, where: str) -> Pixels:
    """Images uint8 (...,C) with the data's channels; colours are never made grey."""
    if images.shape[-1] == wanted.channels:
        return images
    if wanted.channels == 3:
        return np.repeat(images, 3, axis=-1)
    if not (images == images[..., :1]).all():
        raise _different(f"colours in {where}", wanted)
    return images[..., :1]


def _check_memory(shape: tuple[int, ...]) -> None:
    size = math.prod(shape)
    if size > MAX_BYTES:
        rule, seen = f"they may take {readable_memory(MAX_BYTES)}", f"{readable_memory(size)} for {shape}"
        problem = "the samples are too large for memory: {seen}"
        raise DataError(problem, rule=rule, seen=seen, fix="give fewer samples")


# ---- a folder, a zip


class _Files(Protocol):
    title: str

    def open(self, name: str) -> BinaryIO: ...


class _Folder:
    """All files below a folder but those that systems leave behind; samples of gansweep's own count."""

    def __init__(self, root: Path, findings: Findings) -> None:
        self.title, self._root = str(root), root
        self.names = sorted(self._walk(findings), key=natural_key)

    def open(self, name: str) -> BinaryIO:
        return (self._root / name).open("rb")

    def _walk(self, findings: Findings) -> Iterator[str]:
        for place, folders, names in os.walk(self._root):
            folders[:] = [name for name in folders if not reason_to_ignore(name, True)]
            for name in names:
                if reason := reason_to_ignore(name, False):
                    findings.leave_out(reason, [name])
                else:
                    yield (Path(place) / name).relative_to(self._root).as_posix()


def _read_folder(root: Path, wanted: Wanted, findings: Findings) -> tuple[Pixels, Labels | None]:
    """Images, or arrays, as the npz files of `gansweep sample --format npz`."""
    folder = _Folder(root, findings)
    parts = [name for name in folder.names if name.lower().endswith((".npz", ".npy"))]
    if not parts or any(sniff(_head(folder, name)) for name in folder.names if name not in parts):
        return _read_tree(folder, wanted, findings)
    found = [_read_npz(root / name, wanted, findings) for name in parts]
    labels = [part_labels for _, part_labels in found if part_labels is not None]
    return np.concatenate([images for images, _ in found]), (
        np.concatenate(labels) if len(labels) == len(found) else None
    )


def _read_tree(tree: _Folder | ZipTree, wanted: Wanted, findings: Findings) -> tuple[Pixels, Labels | None]:
    names = tree.names if isinstance(tree, _Folder) else [entry.name for entry in tree.entries]
    formats = {name: sniff(_head(tree, name)) for name in names}
    for name in [name for name, format in formats.items() if format not in FORMATS]:
        reason = not_an_image(_head(tree, name), os.path.splitext(name)[1])
        if formats[name] or reason.reason != "not an image":
            raise _unreadable(tree, name, reason if not formats[name] else f"{formats[name]} is not opened")
        findings.leave_out("not an image", [name])
        del formats[name]
    if not formats:
        suffixes = " ".join(sorted({os.path.splitext(name)[1] for name in names})) or "no file"
        rule, fix = "PNG, or another format of images", "save the samples as PNG"
        seen = f"{suffixes} in {tree.title}"
        raise DataError("there are no images: {seen}", rule=rule, seen=seen, fix=fix)
    shape = (len(formats), wanted.size, wanted.size, wanted.channels)
    _check_memory(shape)
    images, files = np.empty(shape, np.uint8), list(formats)

    def read(i: int) -> None:
        images[i] = _read_image(tree, files[i], formats[files[i]], wanted)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the GIL
        for _ in pool.map(read, range(len(files))):
            pass
    for format, count in Counter(formats.values()).items():
        if format in _LOSSY:
            findings.note(f"samples: {count} of {len(files)} are {format}, whose losses are part of the fid")
    return images, _folder_labels(files, wanted.classes, findings)


def _head(files: _Files, name: str) -> bytes:
    try:
        with files.open(name) as stream:
            return stream.read(HEAD_BYTES)
    except Exception as error:  # no permission, a damaged zip
        raise _unreadable(files, name, error) from error


def _read_image(files: _Files, name: str, format: str, wanted: Wanted) -> Pixels:
    try:
        with files.open(name) as stream, open_image(io.BytesIO(stream.read()), format) as image:
            frames = getattr(image, "n_frames", 1)
            seen = f"{image.height}x{image.width} {image.mode}"
            picture = _without_loss(exif.turn(image, exif.orientation(image)))
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        raise _unreadable(files, name, error) from error
    seen += f" in {files.title}/{name}"
    if picture is None or frames > 1:
        raise _different(f"{frames} frames of {seen}" if frames > 1 else seen, wanted)
    if picture.size != (wanted.size, wanted.size):
        raise _different(seen, wanted, height=picture.height, width=picture.width)
    pixels = np.asarray(picture, np.uint8).reshape(wanted.size, wanted.size, -1)
    return _to_channels(pixels, wanted, f"{files.title}/{name}")


def _without_loss(image: Image.Image) -> Image.Image | None:
    """The picture as `L` or `RGB` with 8 bits; None if it cannot become so without loss."""
    if image.mode == "1":
        return image.convert("L")
    if image.has_transparency_data:
        grey = image.mode in ("L", "LA")
        layer = image.convert("LA" if grey else "RGBA")
        opaque = layer.getchannel("A").getextrema() == (255, 255)
        return layer.convert("L" if grey else "RGB") if opaque else None
    if image.mode in ("L", "RGB"):
        return image.copy()
    return image.convert("RGB") if image.mode in ("P", "RGBA", "RGBX") else None


def _unreadable(files: _Files, name: str, error: object) -> DataError:
    rule, fix = "every sample must be an image", "remove it"
    detail = error.detail or error.reason if isinstance(error, UnusableImage) else error
    return DataError("a sample cannot be read", rule=rule, seen=f"{files.title}/{name}: {detail}", fix=fix)


def _folder_labels(files: Sequence[str], classes: Sequence[str], findings: Findings) -> Labels | None:
    """The classes that the folders of all samples are called after, whatever folder lies around these."""
    paths = [[*name.split("/")[:-1], ""] for name in files]
    index = {name: i for i, name in enumerate(classes)}
    index |= {f"class-{i:05d}": i for i in range(len(classes))} | index  # as `gansweep sample` calls them
    while paths[0][0] not in {*index, ""} and len({path[0] for path in paths}) == 1:
        paths = [path[1:] for path in paths]
    folders = [path[0] for path in paths]
    unknown = [folder for folder in dict.fromkeys(folders) if folder not in index]
    if not classes or not any(folders):
        return None
    if unknown:
        findings.note(_not_used(unknown[0] or "what lies beside the folders", classes))
        return None
    findings.classes_from = "the folders of the samples"
    return np.array([index[folder] for folder in folders], np.int64)


def _not_used(name: str, classes: Sequence[str]) -> str:
    return f"labels: not used, {printable(name)} is no class of the data ({', '.join(classes)[:80]})"


# ---- npz


def _is_zip_of_images(path: Path) -> bool:
    """Whether it is a zip without arrays; a damaged one counts as what its name says."""
    with path.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            return path.suffix.lower() == ".zip"
    try:
        return not array_headers(path)
    except Exception:
        return path.suffix.lower() == ".zip"


def _read_npz(path: Path, wanted: Wanted, findings: Findings) -> tuple[Pixels, Labels | None]:
    options = DataOptions(classes="" if wanted.classes else "none")
    found = read_npz(path, options, findings, Path(tempfile.gettempdir()))
    count = sum(part.shape[0] for part in found.pixels)
    shape = (count, wanted.size, wanted.size, wanted.channels)
    height, width = found.pixels[0].shape[1:3]
    if (height, width) != shape[1:3]:
        seen = f"{found.pixels[0].array.dtype} {found.pixels[0].array.shape} in {path}"
        raise _different(seen, wanted, height=height, width=width)
    _check_memory(shape)
    images, filled = np.empty(shape, np.uint8), 0
    for part in found.pixels:
        step = block_length(part.array)
        for start in range(0, part.shape[0], step):
            block = _exact_block(part, np.arange(start, min(start + step, part.shape[0])), wanted, path)
            images[filled : filled + len(block)] = block
            filled += len(block)
    return images, _labels_of_the_data(found.classes, wanted.classes, findings)


def _exact_block(part: PixelArray, rows: Labels, wanted: Wanted, path: Path) -> Pixels:
    """Images of an array, uint8 (n,size,size,C), if 8 bits hold its values."""
    dtype, where = part.array.dtype, f"{part.array.dtype} {part.array.shape} in {path}"
    if dtype == np.uint8:
        part = replace(part, value_range=None)  # nearly black samples are just that
    stored = part.stored(rows)
    if part.value_range is not None and dtype.kind != "b":
        scaled = part.scaled(stored)
        tolerance = max(1e-2, 255 * float(np.finfo(dtype).eps) if dtype.kind == "f" else 0)  # float16: 0.25
        if part.value_range not in KNOWN_RANGES or (abs(scaled - np.rint(scaled)) > tolerance).any():
            raise _different(where, wanted)
    if part.transparent and (part.scaled(stored[..., 3]) < 255).any():
        raise _different(f"transparency in {where}", wanted)
    return _to_channels(part.take(rows), wanted, str(path))


def _labels_of_the_data(found: Classes, classes: Sequence[str], findings: Findings) -> Labels | None:
    """Labels 0..K-1 of the data's classes: by their names, else by their numbers."""
    labels, names = found
    if labels is None or not len(labels):
        return None
    if not names and labels.min() >= 0 and labels.max() < len(classes):
        return labels
    values, inverse = np.unique(labels, return_inverse=True)
    index = {name: i for i, name in enumerate(classes)}
    called = [str(names[value]) if len(names) else str(value) for value in values]
    if unknown := [name for name in called if name not in index]:
        findings.note(_not_used(unknown[0], classes))
        return None
    return np.array([index[name] for name in called], np.int64)[inverse]
