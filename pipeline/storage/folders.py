"""Whether folders can be written, and how much space is free there, asked without writing anything."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import SweepError

_LONGEST_BELOW = 200
"""Bytes by which paths of files are longer than their folder's; MLflow's artifacts have the longest."""


def check_writable(folder: Path, name: str, fix: str) -> Path:
    """Check that files can be made in `folder`, which need not exist; returns the folder above it that does.

    name, fix: what the folder is, and what to type for another one, for the error.

    Raises:
        SweepError: it cannot be made, or not be written.
    """
    try:
        existing = existing_folder(folder)
        _check_names(folder.absolute(), existing)
        _check_access(existing)
    except OSError as error:
        raise not_writable(name, folder, error, fix) from error
    return existing


def check_writable_inside(folder: Path, name: str, fix: str) -> None:
    """Check that a folder and what lies in it, one level deep, can be written; passes where it is not there.

    Raises:
        SweepError: one of them cannot; it may belong to another user.
    """
    try:
        for path in (folder, *folder.iterdir()) if folder.is_dir() else ():
            if path.exists() and not _may_write(path):
                raise _os_error(_denied(path), path)
    except OSError as error:
        raise not_writable(name, Path(error.filename or folder), error, fix) from error


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
    return SweepError(f"{name} cannot be written", seen=f"{folder}: {_reason(error)}", fix=fix)


def _reason(error: OSError) -> str:
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


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
