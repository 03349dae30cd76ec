"""The image files below a folder, without those in folders of results."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from pipeline.data.result_folders import maker_of
from pipeline.errors import DataError

MAX_NAMED = 3
"""So many folders are named in a line."""


class FolderWalk:
    """The image files below a folder, in the order of their names.

    Hidden names are left out, links are followed, no folder is entered twice. A folder below `root` that
    holds results is left out, `root` itself never.

    files: the image files. left_out: of each folder of results who made it, and how many images are in it;
    also of an output that is not there yet.
    """

    def __init__(self, root: Path, suffixes: Collection[str], outputs: Mapping[Path, str]) -> None:
        """suffixes: of image files, in small letters. outputs: folders that will hold results, and whose.

        Raises:
            DataError: a folder cannot be read.
        """
        self.root, self._suffixes = root, suffixes
        self._outputs = {_identity(folder): maker for folder, maker in outputs.items()}
        self._entered: set[tuple[int, int] | None] = set()
        self.left_out: dict[Path, tuple[str, int]] = {}
        self.files = sorted(self._walk())
        for folder, maker in outputs.items():
            if not os.path.exists(folder) and (inner := _below(folder, root)):
                self.left_out[inner] = maker, 0

    def describe_left_out(self) -> str:
        """`runs (the output folder, 14 images), a (a sweep, 2 images)`; "" where nothing is left out."""
        rows = sorted(self.left_out.items(), key=lambda row: (-row[1][1], row[0]))
        named = [
            f"{printable(str(folder.relative_to(self.root)))} ({maker}, {count} images)"
            for folder, (maker, count) in rows[:MAX_NAMED]
        ]
        if more := rows[MAX_NAMED:]:
            named.append(f"{len(more)} more ({sum(count for _, (_, count) in more)} images)")
        return ", ".join(named)

    def _walk(self) -> Iterator[Path]:
        for place, children, names in os.walk(self.root, onerror=_raise_unreadable, followlinks=True):
            folder, identity = Path(place), _identity(place)
            if identity in self._entered:  # a link back up, or a second way to the same images
                children.clear()
                continue
            self._entered.add(identity)
            if folder != self.root and (
                maker := self._outputs.get(identity) or maker_of(folder, children, names)
            ):
                children.clear()
                self._leave_out(folder, maker)
                continue
            children[:] = sorted(name for name in children if not name.startswith((".", "__MACOSX")))
            for name in names:
                path = folder / name
                # A dangling link counts (as unreadable): a checkout without its data must not look empty.
                if self._is_image(name) and (path.is_file() or not path.exists()):
                    yield path

    def _leave_out(self, folder: Path, maker: str) -> None:
        count = sum(self._is_image(name) for _, _, names in os.walk(folder) for name in names)
        if count or _identity(folder) in self._outputs:
            self.left_out[folder] = maker, count

    def _is_image(self, name: str) -> bool:
        return name[0] != "." and os.path.splitext(name)[1].lower() in self._suffixes


def printable(name: str) -> str:
    """A file name with bytes that are no UTF-8 escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _identity(folder: Path | str) -> tuple[int, int] | None:
    """The same for every way to a folder; None where there is none."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _below(folder: Path, root: Path) -> Path | None:
    """`folder`, which need not exist, as a path that begins with `root`; None unless it lies below that."""
    real, real_root = Path(os.path.realpath(folder)), Path(os.path.realpath(root))
    return root / real.relative_to(real_root) if real_root in real.parents else None


def _raise_unreadable(error: OSError) -> None:
    rule, fix = "every folder below folder:PATH must be readable", "change its permissions or move it away"
    raise DataError("a folder cannot be read", rule=rule, seen=str(error), fix=fix) from error
