"""Whether folders can be written, and how much space is free there, asked without writing anything."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SweepError
from pipeline.storage.addresses import sqlite_path

_LONGEST_BELOW = 200
"""Bytes by which paths of files are longer than their folder's; MLflow's artifacts have the longest."""


OUT_FIX = "choose another --out"
CACHE_FIX = "export GANSWEEP_CACHE=FOLDER"


@dataclass(frozen=True)
class Folder:
    """A folder that will be written, which need not exist.

    name, fix: what it is, and what to type for another one, for errors.
    """

    path: Path
    name: str
    fix: str

    def check(self) -> Path:
        """Check that files can be made in it; returns it, or the nearest folder above it that exists.

        Raises:
            SweepError: it cannot be made, or not be written.
        """
        try:
            existing = existing_folder(self.path)
            _check_names(self.path.absolute(), existing)
            _check_access(existing)
        except OSError as error:
            raise not_writable(self.name, self.path, error, self.fix) from error
        return existing

    def check_content(self, paths: Iterable[Path]) -> None:
        """Check that these paths in it can be written, as far as they are there.

        Raises:
            SweepError: one cannot; it may belong to another user.
        """
        for path in paths:
            if os.path.exists(path) and not _may_write(path):
                raise not_writable(self.name, path, _os_error(_denied(path), path), self.fix)


def database_folders(tracking_uri: str, storage: str) -> Iterator[Folder]:
    """The folders of a sweep's sqlite files and of MLflow's beside one; none for addresses of other kinds."""
    for address, name, option in (
        (tracking_uri, "the tracking store's folder", "--tracking-uri"),
        (storage, "the study's folder", "--storage"),
    ):
        path = sqlite_path(address)
        if path is not None:
            yield Folder(path.parent, name, f"correct {option}")
            if address == tracking_uri:
                yield Folder(path.parent / "artifacts", "the folder of MLflow's files", f"correct {option}")


def check_temporary_folder() -> None:
    """SweepError where Python finds no folder for temporary files; it passes over a missing TMPDIR."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise SweepError(
            "no folder for temporary files can be written",
            seen=f"TMPDIR={os.environ.get('TMPDIR', '')}, /tmp, /var/tmp",
            fix="export TMPDIR=FOLDER, one that this user may write",
        ) from error


def may_write(folder: Path) -> bool:
    """Whether files can be made in `folder`, which need not exist."""
    try:
        _check_access(existing_folder(folder))
    except OSError:
        return False
    return True


def existing_folder(path: Path) -> Path:
    """The folder itself, or the nearest above it that exists.

    Raises:
        OSError: something on the way is no folder, a link to nothing, or may not be looked into.
    """
    for folder in _upwards(path):
        try:
            os.lstat(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if folder.is_dir():
            return folder
        if folder.is_symlink():
            raise OSError(errno.ENOENT, f"{folder} is a link to {os.readlink(folder)}, which is not there")
        raise NotADirectoryError(
            errno.ENOTDIR, f"{folder} is not a folder" if folder != path else "not a folder"
        )
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def free_bytes(path: Path) -> int:
    """Free space for this user at `path`, which need not exist; a quota is not known."""
    return shutil.disk_usage(existing_folder(path)).free


def not_writable(name: str, folder: Path, error: OSError, fix: str) -> SweepError:
    """The error for a folder that this machine cannot write. name: what the folder is, `--out`."""
    reason = error.strerror or str(error)
    lower = reason[:1].lower() + reason[1:]
    return SweepError(f"{name} cannot be written: {{seen}}", rule=lower, seen=str(folder), fix=fix)


def _upwards(path: Path) -> Iterator[Path]:
    absolute = path.absolute()
    yield absolute
    yield from absolute.parents


def _check_names(folder: Path, existing: Path) -> None:
    """OSError where a name, or the path of a file in the folder, is longer than the file system takes."""
    longest = os.pathconf(existing, "PC_NAME_MAX")
    long = next((part for part in folder.relative_to(existing).parts if len(os.fsencode(part)) > longest), "")
    if long:
        raise OSError(
            errno.ENAMETOOLONG, f"the name has {len(os.fsencode(long))} bytes, {longest} are possible"
        )
    length, most = len(os.fsencode(folder)), os.pathconf(existing, "PC_PATH_MAX") - _LONGEST_BELOW
    if length > most:
        raise OSError(
            errno.ENAMETOOLONG, f"the path has {length} bytes, {most} leave room for what lies below"
        )


def _check_access(folder: Path) -> None:
    """OSError where no file can be made in this folder."""
    if not _may_write(folder):
        raise _os_error(_denied(folder), folder)
    state = os.statvfs(folder)
    if state.f_files and not state.f_favail:
        raise OSError(errno.ENOSPC, "no inodes are left: too many files on this disk")


def _may_write(path: Path) -> bool:
    how = os.W_OK | (os.X_OK if path.is_dir() else os.R_OK)
    return os.access(path, how, effective_ids=os.access in os.supports_effective_ids)


def _denied(path: Path) -> int:
    """The error number for a path that may not be written."""
    return errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES


def _os_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
