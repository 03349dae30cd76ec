"""What a source of images is asked for and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.data.findings import Findings
from pipeline.data.options import DataOptions

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class ImageRows(Protocol):
    """Images that are read and prepared a few at a time, in any order: they need not fit in memory."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, size, size, C), C = 1 (grey) or 3 (RGB)."""

    def read(self, rows: Labels) -> tuple[Pixels, list[str]]:
        """The images `rows` as uint8 (n,size,size,C) in 0..255; and why each cannot be read, "" if it can.

        Reads on several threads where that is faster, and logs nothing.
        """

    def notes(self) -> list[str]:
        """What was special about the images read so far, as lines for `Findings`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RawImages:
    """The images of a source before the split.

    images: read a few at a time. labels: int64 (N,), any values; None without labels. names: the class name
    of label value i; empty if there are none. held: bool (N,), which the source itself holds out; None = it
    does not say. files: what each image is called, for messages; empty = by its number. findings: what was
    understood, and what was left out; `read` adds nothing to it.
    """

    images: ImageRows
    labels: Labels | None = None
    names: Sequence[str] = ()
    held: npt.NDArray[np.bool_] | None = None
    files: Sequence[str] = ()
    findings: Findings = field(default_factory=Findings)


class SourceRequest(NamedTuple):
    """What is asked of a source.

    name: as it was written, `folder:PATH`. path: PATH, where the source takes one. options: how images are
    read. downloads: the folder for what is downloaded. outputs: folders that may lie below PATH but hold no
    data, and what they are. scratch: a folder for large temporary files.
    """

    name: str
    path: Path
    options: DataOptions = DataOptions()
    downloads: Path = Path("downloads")
    outputs: Mapping[Path, str] = MappingProxyType({})
    scratch: Path = Path("scratch")


class ImageSource(NamedTuple):
    """A source that has been found but not read.

    key: JSON values that determine the content: the same key means the same images. None = nothing does, so
    that they are read every time. read: looks at the images; called if they are not prepared yet. findings:
    what was left out without being looked at, which is no part of the key.
    """

    key: Sequence[object] | None
    read: Callable[[], RawImages]
    findings: Findings | None = None
