"""The files of a folder or a zip as one list, without what systems and gansweep itself put there.

Every file of the user's is listed, whatever its suffix: what is an image is decided later, by its content.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from pipeline.data.files.archives import check_members, member_name, open_zip
from pipeline.data.files.ignored_names import reason_to_ignore
from pipeline.data.files.natural_order import natural_key
from pipeline.data.files.result_folders import maker_of
from pipeline.data.files.text_files import decode_text
from pipeline.data.findings import Findings
from pipeline.errors import DataError

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
"""Only to count the images in folders that are left out, which are not opened."""
SECOND_WAY = "in a link to a folder that is used"
MAX_MEMBER = 2**30
"""A member of a zip that claims to be larger is left out."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of a tree.

    name: below the tree's root, with `/` between folders. size: bytes. stamp: changes when the file does: the
    modification time in ns in a folder, the CRC-32 in a zip.
    """

    name: str
    size: int
    stamp: int


class FileTree(Protocol):
    """Files to read from, in natural order of their names.

    title: as messages call it. entries: the files that may be used; may be replaced by fewer.
    empty_folders: names of folders without a file.
    """

    title: str
    entries: list[FileEntry]
    empty_folders: list[str]

    def open(self, name: str) -> BinaryIO:
        """A seekable stream of a file's bytes; may be called on several threads.

        OSError or ValueError: it cannot be opened.
        """

    def read_text(self, name: str, limit: int) -> str:
        """A file as text (`decode_text`); DataError if it is longer than `limit` bytes, or unreadable."""


class FolderTree:
    """The files below a folder: links are followed, no folder is entered twice.

    Left out and counted in `findings`: folders of results (`maker_of`, and `outputs`), names that systems
    leave behind, and second ways to a folder. `root` itself is never left out. A link to nowhere is an entry:
    a checkout without its data must not look empty.
    """

    def __init__(self, root: Path, outputs: Mapping[Path, str], findings: Findings | None = None) -> None:
        """outputs: folders that hold results, and what they are, as `the output folder`.

        Raises:
            DataError: there is no such folder, or one below it cannot be read.
        """
        self.title, self._root = str(root), root
        self.findings = Findings() if findings is None else findings
        self.empty_folders: list[str] = []
        if not os.path.isdir(root):
            rule = "folder:PATH names a folder"
            raise DataError("there is no folder {seen}", rule=rule, seen=str(root), fix="check the path")
        self._outputs = {_identity(folder): what for folder, what in outputs.items()}
        self._entered: set[tuple[int, int] | None] = set()
        self.entries = _in_order(self._walk())

    def open(self, name: str) -> BinaryIO:
        return (self._root / name).open("rb")

    def read_text(self, name: str, limit: int) -> str:
        return decode_text(read_bytes(self, name, limit))

    def _walk(self) -> Iterator[FileEntry]:
        pending = [str(self._root)]
        while pending:  # links come last, so that their folders are known by their own names
            for place, children, names in os.walk(pending.pop(0), onerror=_raise_unreadable):
                identity = _identity(place)
                if identity in self._entered:  # a link back up, or a second way to the same images
                    if not self._is_around(identity, place):
                        self._leave_out(SECOND_WAY, place)
                    children.clear()
                    continue
                self._entered.add(identity)
                if place != str(self._root) and (reason := self._results(place, identity, children, names)):
                    self._leave_out(reason, place)
                    children.clear()
                    continue
                yield from self._files(place, children, names)
                paths = [os.path.join(place, child) for child in children]
                pending += filter(os.path.islink, paths)

    def _files(self, place: str, children: list[str], names: list[str]) -> Iterator[FileEntry]:
        """The files of one folder; what systems leave behind is counted, and taken out of `children`."""
        if not children and not names:
            self.empty_folders.append(self._name(place))
        children.sort(key=natural_key)
        for child in [child for child in children if reason_to_ignore(child, True)]:
            self._leave_out(reason_to_ignore(child, True), os.path.join(place, child))
            children.remove(child)
        for name in sorted(names, key=natural_key):
            path = os.path.join(place, name)
            if reason := reason_to_ignore(name, False):
                self.findings.leave_out(reason, [self._name(path)])
            elif entry := _entry(path, self._name(path)):
                yield entry

    def _is_around(self, identity: tuple[int, int] | None, place: str) -> bool:
        """Whether a folder is one of those that `place` lies in."""
        while place != str(self._root):
            place = os.path.dirname(place)
            if _identity(place) == identity:
                return True
        return False

    def _results(
        self, place: str, identity: tuple[int, int] | None, children: list[str], names: list[str]
    ) -> str:
        """Why a folder is left out as one of results; "" if it is not."""
        if what := self._outputs.get(identity):
            return f"in {what}"
        maker = maker_of(Path(place), children, names)
        return f"in results of {maker}" if maker else ""

    def _leave_out(self, reason: str, folder: str) -> None:
        """The images in a folder that is left out; links in it are not followed."""
        images = [
            self._name(os.path.join(place, name))
            for place, _, names in os.walk(folder)
            for name in names
            if _looks_like_image(name)
        ]
        self.findings.leave_out(reason, sorted(images, key=natural_key))

    def _name(self, path: str) -> str:
        name = os.path.relpath(path, self._root)
        return "" if name == "." else name.replace(os.sep, "/")


class ZipTree:
    """The files in a zip, as `FolderTree` gives those of a folder.

    Left out and counted in `findings`: names that systems leave behind, second files of one name, and members
    that claim to be larger than `MAX_MEMBER`. `open` unpacks as it reads, so that seeking back starts again:
    read a member as a whole to use it at random.
    """

    def __init__(self, path: Path, findings: Findings | None = None) -> None:
        """Raises:
        DataError: it is no zip, damaged, empty, encrypted, or packed by a method that Python does not know.
        """
        self.title = str(path)
        self.findings = Findings() if findings is None else findings
        self._archive = open_zip(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        folders: set[str] = set()
        for name, member in sorted(
            ((member_name(m), m) for m in self._archive.infolist()), key=lambda row: natural_key(row[0])
        ):
            if name.endswith("/"):
                folders.add(name.rstrip("/"))
            elif name and self._is_used(name, member):
                self._members[name] = member
        check_members(path, self._members.values())
        filled = {
            "/".join(parts[:i])
            for name in self._members
            for parts in [name.split("/")]
            for i in range(len(parts))
        }
        self.empty_folders = sorted(folder for folder in folders - filled if not _ignored(f"{folder}/x"))
        self.entries = _in_order(FileEntry(name, m.file_size, m.CRC) for name, m in self._members.items())

    def open(self, name: str) -> BinaryIO:
        try:
            return cast(BinaryIO, self._archive.open(self._members[name]))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise ValueError(str(error)) from error

    def read_text(self, name: str, limit: int) -> str:
        return decode_text(read_bytes(self, name, limit))

    def _is_used(self, name: str, member: zipfile.ZipInfo) -> bool:
        if reason := _ignored(name):
            if reason_to_ignore(name.rpartition("/")[2], False) or _looks_like_image(name):
                self.findings.leave_out(reason, [name])
            return False
        if name in self._members:
            self.findings.leave_out("second file of the same name", [name])
            return False
        if member.file_size > MAX_MEMBER:
            self.findings.leave_out("too large", [name])
            return False
        return True


def _in_order(entries: Iterable[FileEntry]) -> list[FileEntry]:
    return sorted(entries, key=lambda entry: natural_key(entry.name))


def _entry(path: str, name: str) -> FileEntry | None:
    """None for what is no file: a socket, a pipe, a device."""
    try:
        found = os.stat(path)
    except OSError:
        try:
            found = os.lstat(path)
        except OSError:  # deleted meanwhile
            return None
        return FileEntry(name, found.st_size, found.st_mtime_ns)
    return FileEntry(name, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _ignored(name: str) -> str:
    """Why a member of a zip is left out, by its own name or by that of a folder above it."""
    *folders, last = name.split("/")
    reasons: Iterator[str] = (reason_to_ignore(folder, True) for folder in folders)
    return next(filter(None, reasons), "") or reason_to_ignore(last, False)


def _looks_like_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def read_bytes(tree: FileTree, name: str, limit: int) -> bytes:
    """The content of a file of `tree`; DataError if it is longer than `limit` bytes, or unreadable."""
    fix = "mend it or move it away"
    try:
        with tree.open(name) as stream:
            data = stream.read(limit + 1)
    except Exception as error:  # a damaged member of a zip fails in a dozen ways
        raise DataError(f"{tree.title}: {name} cannot be read", seen=str(error), fix=fix) from error
    if len(data) > limit:
        raise DataError(f"{tree.title}: {name} is longer than {{seen}} bytes", seen=limit, fix=fix)
    return data


def _identity(folder: Path | str) -> tuple[int, int] | None:
    """The same for every way to a folder; None where there is none."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _raise_unreadable(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):  # deleted meanwhile
        return
    rule, fix = "every folder below the data must be readable", "change its permissions or move it away"
    raise DataError("a folder cannot be read", rule=rule, seen=str(error), fix=fix) from error
