"""A tree of files in memory, for tests of what their names mean."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.data.files.file_tree import FileEntry
from pipeline.data.files.natural_order import natural_key
from pipeline.data.files.text_files import decode_text
from pipeline.data.findings import Findings
from pipeline.data.layouts.layout import Layout, understand_layout
from pipeline.data.options import DataOptions

WAYS = ("plain", "dots", "relative", "link to out", "link to data", "deeper")
"""Ways to name an output folder that lies below the data."""


def output_by(way: str, root: Path, inner: str) -> Path:
    """The output folder `root`/runs (`deeper`: `root`/deep/down) by one of `WAYS`; makes links beside `root`.

    inner: another folder in `root`. `relative` is meant from within `root`.
    """
    (root.parent / "data").symlink_to(root)
    (root.parent / "link").symlink_to(root / "runs")
    return {
        "plain": root / "runs",
        "dots": root / inner / ".." / "runs",
        "relative": Path("runs"),
        "link to out": root.parent / "link",
        "link to data": root.parent / "data" / "runs",
        "deeper": root / "deep" / "down",
    }[way]


class ListedTree:
    """Files by their names; those with a text have it as their content."""

    title = "photos"

    def __init__(
        self, names: Iterable[str], texts: Mapping[str, str | bytes], empty: Iterable[str] = ()
    ) -> None:
        self._bytes = {name: t if isinstance(t, bytes) else t.encode() for name, t in texts.items()}
        listed = sorted({*names, *texts}, key=natural_key)
        self.entries = [FileEntry(name, len(self._bytes.get(name, b"x")), 0) for name in listed]
        self.empty_folders = list(empty)

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self._bytes[name])

    def read_text(self, name: str, limit: int) -> str:
        assert len(self._bytes[name]) <= limit
        return decode_text(self._bytes[name])


class Understood:
    """A layout and what was found on the way to it."""

    def __init__(self, layout: Layout, findings: Findings) -> None:
        self.layout, self.findings = layout, findings
        self.files = [file.name for file in layout.files]
        self.names: list[str] = layout.names
        self.notes = findings.notes
        self.left_out = {reason: entry.count for reason, entry in findings.left_out.items()}

    @property
    def classes(self) -> dict[str, int]:
        """Images by class, in the order of the labels."""
        if self.layout.labels is None:
            return {}
        assert self.layout.labels.dtype == np.int64
        assert len(self.layout.labels) == len(self.files)
        return {name: int((self.layout.labels == i).sum()) for i, name in enumerate(self.names)}

    @property
    def held(self) -> list[str]:
        """The names of held-out images."""
        if self.layout.held is None:
            return []
        assert self.layout.held.dtype == bool
        return [name for name, held in zip(self.files, self.layout.held, strict=True) if held]

    def class_of(self, file: str) -> str:
        assert self.layout.labels is not None
        return self.names[int(self.layout.labels[self.files.index(file)])]

    def note(self, part: str) -> str:
        """The one note that holds `part`."""
        (found,) = [note for note in self.notes if part in note]
        return found


def understand(
    names: Iterable[str],
    texts: Mapping[str, str | bytes] | None = None,
    empty: Iterable[str] = (),
    *,
    classes: str = "",
    split: str = "",
) -> Understood:
    """The layout of files of these names: images by their suffix."""
    findings = Findings()
    tree = ListedTree(names, texts or {}, empty)
    options = DataOptions(classes=classes, split=split)
    return Understood(understand_layout(tree, options, findings, _is_image), findings)


def _is_image(entry: FileEntry) -> bool:
    return entry.name.lower().endswith((".png", ".jpg"))


def numbered(folder: str, count: int, first: int = 0) -> list[str]:
    """`folder/00000.png`, ...; `count` of them."""
    return [f"{folder}/{i:05d}.png".lstrip("/") for i in range(first, first + count)]
