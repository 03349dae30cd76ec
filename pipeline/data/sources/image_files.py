"""Images from the files of a folder or a zip: what is an image is decided by content, what it shows by
layout.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from pipeline.data.files.file_tree import FileTree, FolderTree, ZipTree
from pipeline.data.findings import Findings, printable
from pipeline.data.images.encoded_images import Looked, encoded_images, look_at
from pipeline.data.images.image_formats import ARCHIVE, IMAGE_SUFFIXES, UnusableImage
from pipeline.data.images.opening import AVIF_MISSING, HEIF_MISSING
from pipeline.data.layouts.layout import NOT_AN_IMAGE, understand_layout
from pipeline.data.options import DataOptions
from pipeline.data.preparing.preparation import MIN_IMAGES, check_unreadable, too_few_images
from pipeline.data.source_types import ImageSource, RawImages, SourceRequest
from pipeline.data.sources.path_hints import did_you_mean, suggest_source_in
from pipeline.data.understood import Understood
from pipeline.errors import DataError

log = logging.getLogger(__name__)


_WHOLE = (NOT_AN_IMAGE, ARCHIVE, "too large", "neither grey nor colour", HEIF_MISSING, AVIF_MISSING)
"""Reasons of files that are what they should be, but of no use here; all others tell of a broken one."""


def folder_source(request: SourceRequest) -> ImageSource:
    """The image files below a folder; what they show, and what is left out, is found by `layout`.

    The key is made of the files' names, lengths and modification times; `read` opens them.

    Raises:
        DataError: there is no such folder; from `read`: there are too few images, or too many are unreadable.
    """
    root = request.path
    if not os.path.isdir(root):
        rule, fix = "folder:PATH names a folder", did_you_mean(root, "check the path")
        raise DataError("there is no folder {seen}", rule=rule, seen=str(root), fix=fix)
    findings = Findings()
    return _source("folder", FolderTree(root, request.outputs, findings), findings, request)


def zip_source(request: SourceRequest) -> ImageSource:
    """The image files in a zip, as `folder_source` finds those of a folder.

    Raises:
        DataError: it is no zip, or is damaged; from `read`: as `folder_source`.
    """
    findings = Findings()
    return _source("zip", ZipTree(request.path, findings), findings, request)


def file_images(folder: Path, files: Sequence[str], options: DataOptions) -> RawImages:
    """The images in the named files of `folder`, without labels."""
    findings = Findings()

    def opener(name: str) -> BinaryIO:
        return (folder / name).open("rb")

    looked = look_at(files, opener)
    names = [name for name in files if name in looked.headers]
    _tell_unusable(looked.unusable, len(names), findings)
    rows, index = encoded_images(names, looked, opener, options, findings)
    return RawImages(images=rows, files=[printable(names[i]) for i in index.tolist()], findings=findings)


def _source(kind: str, tree: FileTree, listed: Findings, request: SourceRequest) -> ImageSource:
    """listed: what was left out of the list of files."""
    rows = [(entry.name, entry.size, entry.stamp) for entry in tree.entries]
    key = [kind, str(request.path.resolve()), rows]
    return ImageSource(key, lambda: _read(tree, request.options, listed), listed)


def _read(tree: FileTree, options: DataOptions, listed: Findings) -> RawImages:
    findings = Findings()
    log.info(f"looking at {len(tree.entries):,} files in {tree.title}")
    looked = _without_drawings(look_at([entry.name for entry in tree.entries], tree.open), findings)
    unusable = {name: error for name, error in looked.unusable.items() if error.reason != NOT_AN_IMAGE}
    _tell_unusable(unusable, len(looked.headers), findings)
    # What is no image may say something about the images: it is left to the layout.
    tree.entries = [e for e in tree.entries if e.name in looked.headers or e.name in looked.unusable]
    tree.entries = [e for e in tree.entries if e.name not in unusable]
    layout = understand_layout(tree, options, findings, lambda entry: entry.name in looked.headers)
    names = [entry.name for entry in layout.files]
    if not looked.headers and (hint := suggest_source_in(tree.title)):
        rule, fix = "folder:PATH names a folder of image files", f"did you mean {hint!r}?"
        raise DataError("there are no images in {seen}", rule=rule, seen=tree.title, fix=fix)
    if len(names) < MIN_IMAGES:
        left_out = Understood.of(findings).with_left_out(listed).describe_left_out()
        what = f"usable images in {tree.title}" + (f"; left out: {left_out}" if left_out else "")
        raise too_few_images(len(names), what)
    rows, index = encoded_images(names, looked, tree.open, options, findings)
    return RawImages(
        images=rows,
        labels=None if layout.labels is None else layout.labels[index],
        names=layout.names,
        held=None if layout.held is None else layout.held[index],
        files=[printable(names[i]) for i in index.tolist()],
        findings=findings,
    )


def _without_drawings(looked: Looked, findings: Findings) -> Looked:
    """Without the sheets and charts that gansweep drew; a folder of nothing else was named on purpose."""
    drawn = [name for name, header in looked.headers.items() if header.drawn]
    if not drawn or len(drawn) == len(looked.headers):
        return looked
    findings.leave_out("sheets and charts of gansweep's", drawn)
    return replace(looked, headers={name: h for name, h in looked.headers.items() if not h.drawn})


def _tell_unusable(unusable: Mapping[str, UnusableImage], images: int, findings: Findings) -> None:
    """Count the files that give no image by their reasons; refuse if too many that should are broken."""
    for name, error in unusable.items():
        findings.leave_out(error.reason, [f"{name} ({error.detail})" if error.detail else name])
    broken = [printable(f"{name} ({error})") for name, error in unusable.items() if _is_broken(name, error)]
    check_unreadable(len(broken), images + len(broken), broken)


def _is_broken(name: str, error: UnusableImage) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    if suffix and suffix not in IMAGE_SUFFIXES:  # as the empty texts of labels of images without objects
        return False
    return error.reason not in _WHOLE and not error.reason.startswith("format not supported")
