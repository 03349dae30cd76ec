"""Images from an npz or npy file, whatever its arrays are called (`npz_keys`). Nothing is ever unpickled."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.data.arrays import npz_keys
from pipeline.data.arrays.array_labels import Classes, check_labels, texts_of, understand_labels
from pipeline.data.arrays.array_layout import (
    Array,
    Header,
    PixelArray,
    Place,
    channels_are_first,
    understand_pixels,
)
from pipeline.data.arrays.array_rows import ArrayRows
from pipeline.data.arrays.npz_keys import Part
from pipeline.data.arrays.npz_members import array_headers, load_array
from pipeline.data.findings import Findings
from pipeline.data.options import DataOptions
from pipeline.data.source_types import ImageSource, RawImages, SourceRequest
from pipeline.data.sources.path_hints import did_you_mean
from pipeline.errors import DataError


class NpzImages(NamedTuple):
    """pixels: the arrays of images. held: bool (N,), the file's own split, or None. classes: their labels."""

    pixels: Sequence[PixelArray]
    held: np.ndarray | None
    classes: Classes


def npz_source(request: SourceRequest) -> ImageSource:
    """An npz or npy file of images, and perhaps labels, in one of the forms of `npz_keys` and `array_layout`.

    The key is made of the file's path, length and modification time; `read` opens the file.

    Raises:
        DataError: there is no such file; from `read`: it is damaged, or its arrays are not understood.
    """
    path, options = request.path, request.options
    if not os.path.isfile(path):
        problem = "{seen} is a folder" if os.path.isdir(path) else "there is no file {seen}"
        fix = did_you_mean(path, "check the path")
        raise DataError(problem, rule="npz:PATH names a file", seen=str(path), fix=fix)
    stat = path.stat()
    key = ["npz", str(path.resolve()), stat.st_size, stat.st_mtime_ns]

    def read() -> RawImages:
        findings = Findings()
        found = read_npz(path, options, findings, request.scratch)
        rows = ArrayRows(found.pixels, options, findings)
        labels, names = found.classes
        return RawImages(images=rows, labels=labels, names=names, held=found.held, findings=findings)

    return ImageSource(key, read)


def read_npz(path: Path, options: DataOptions, findings: Findings, scratch: Path) -> NpzImages:
    """The images of an npz or npy file with their own size and split, and its labels.

    options: `classes` = none leaves its labels unread. findings: takes the guesses.
    scratch: takes what must be unpacked; shapes are checked before, because a small file may claim terabytes.

    Raises:
        DataError: the file is damaged, or its arrays are not understood.
    """
    try:
        headers = array_headers(path)
        if not headers:
            raise ValueError("there is no array in it")
        parts = npz_keys.find_parts(headers, path)
        for part in parts:
            channels_are_first(headers[part.images], _place(part.images, path))
        wanted = options.classes != "none"
        classes = _read_classes(path, parts, headers, findings, scratch) if wanted else Classes()
        arrays = [(_place(p.images, path), load_array(path, p.images, scratch)) for p in parts]
        pixels = understand_pixels(arrays, options.background_colour, findings)
    except DataError:
        raise
    except Exception as error:  # a damaged zip fails in a dozen ways (zlib, lzma, BadZipFile, ...)
        rule = f"{path} must be an npz file"
        fix = did_you_mean(path, "") if path.suffix.lower() not in (".npz", ".npy") else ""
        fix = fix or "write it with numpy.savez(file, images=..., labels=...)"
        raise DataError("the npz cannot be read: {seen}", rule=rule, seen=str(error), fix=fix) from error
    _note_arrays(parts, headers, classes, findings)
    held = np.repeat([part.held for part in parts], [headers[part.images].shape[0] for part in parts])
    return NpzImages(pixels, held if held.any() else None, classes)


def _place(name: str, path: Path) -> Place:
    return Place(name, str(path), path)


def _read_classes(
    path: Path, parts: Sequence[Part], headers: Mapping[str, Header], findings: Findings, scratch: Path
) -> Classes:
    """The labels of all parts, if all have some."""
    missing = [part.images for part in parts if not part.labels]
    if missing:
        if len(missing) < len(parts):
            findings.note(f"labels: none are used, because `{missing[0]}` has none; write some for it")
        return Classes()
    for part in parts:
        check_labels(headers[part.labels], headers[part.images].shape[0], _place(part.labels, path))
    key = npz_keys.class_names_key(headers)
    names = texts_of(load_array(path, key, scratch)) if key else ()
    found: list[Array] = [load_array(path, part.labels, scratch) for part in parts]
    first = _place(parts[0].labels, path)
    for part, array in zip(parts, found, strict=True):
        if array.size != len(array):  # masks, perhaps, and many of them
            return understand_labels(array, _place(part.labels, path), findings)
    return understand_labels(np.concatenate([array.reshape(-1) for array in found]), first, findings, names)


def _note_arrays(
    parts: Sequence[Part], headers: Mapping[str, Header], classes: Classes, findings: Findings
) -> None:
    """Tell which arrays were taken, unless they are called `images` and `labels`, and which were not."""
    labels = [part.labels for part in parts if classes.labels is not None]
    if [part.images for part in parts] != ["images"] or labels not in ([], ["labels"]):
        images = " and ".join(f"`{part.images}`" for part in parts)
        with_labels = f", labels: {' and '.join(f'`{name}`' for name in labels)}" if labels else ""
        findings.note(f"images: {images}{with_labels}; if that is wrong, name them images and labels")
    if held := [f"`{part.images}`" for part in parts if part.held]:
        findings.note_split(f"held out: {' and '.join(held)}; --split merge draws another split")
    used = (
        {part.images for part in parts}
        | {part.labels for part in parts}
        | {npz_keys.class_names_key(headers)}
    )
    if other := {name: header for name, header in headers.items() if name not in used}:
        findings.note(f"arrays that are not used: {npz_keys.describe(other)[:200]}")
