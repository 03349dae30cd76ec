"""Atomic file writes, tolerant reads, full disks, and the location of the cache.

A file is written under a temporary name in the same folder and then renamed, so a reader sees the old content
or the new one, never a part.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.storage.folders import may_write
from pipeline.storage.home import private_folder

log = logging.getLogger(__name__)

_CACHE = "GANSWEEP_CACHE"
_MIN_FREE_BYTES = 1_000_000  # a disk with less free space counts as full: no champion fits


def cache_root() -> Path:
    """The folder of what can be computed or downloaded again: $GANSWEEP_CACHE, else ~/.cache/gansweep.

    Where the home cannot be written, it is a folder of the user's below the temporary one, for the processes
    that this one starts too.

    Raises:
        ConfigError: it cannot be written.
    """
    named = os.environ.get(_CACHE)
    if not named:
        folder = Path("~/.cache/gansweep").expanduser()
        if may_write(folder):
            return folder
        named = os.environ[_CACHE] = str(private_folder())
        log.info(f"{folder} cannot be written: caches are kept in {named} ({_CACHE} names another folder)")
    folder = Path(os.path.abspath(os.path.expanduser(named)))
    if not may_write(folder):
        raise ConfigError(
            f"{_CACHE}={{seen}} cannot be written", seen=named, fix="name another folder, or unset it"
        )
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what is written there replaces `path` at the end, or is deleted on an error.

    The temporary path has the suffix of `path`, because some writers choose the format by it.
    """
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data`, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` by `text` in UTF-8, atomically."""
    write_bytes(path, text.encode())


def append_bytes(path: Path, data: bytes) -> None:
    """Append `data` to the file at `path`, all of it or nothing. There may be one writer at a time.

    Raises:
        OSError: the disk is full, or the file cannot be written; the file is as before.
    """
    with open(path, "ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            written = file.write(data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(size)
            raise


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; `{}` if the file is missing, damaged or holds no object."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; files that are deleted meanwhile count as 0."""
    total = path.stat().st_size if path.is_file() else 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def is_full(error: BaseException) -> bool:
    """Whether `error` says that the disk, or the user's quota on it, has no space left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_space(error: BaseException, folder: Path) -> bool:
    """Whether `error` was caused by a full disk; libraries raise exceptions of their own for it."""
    return is_full(error) or (
        isinstance(error, Exception) and shutil.disk_usage(folder).free < _MIN_FREE_BYTES
    )


def _log_change(full: bool, text: str) -> None:
    log.log(logging.WARNING if full else logging.INFO, "%s", text)


class DiskSpace:
    """Lets a writer continue while the disk is full; reports once when that begins and once when it ends.

    consequence: what happens meanwhile, as the end of a sentence: `nothing is saved, training goes on`.
    on_change: called with whether the disk is full, and a line of text; by default the line is logged.
    full: whether the last write found no space.
    """

    def __init__(self, consequence: str, on_change: Callable[[bool, str], object] = _log_change) -> None:
        self.full = False
        self._consequence, self._on_change = consequence, on_change

    @contextmanager
    def tolerate_full(self, *, small: bool = False) -> Iterator[None]:
        """Suppress the error of a full disk in the block: the writer checks `full` and tries again later.

        small: a success proves nothing about larger writes, so it does not reset `full`.
        """
        try:
            yield
        except OSError as error:
            if not is_full(error):
                raise
            if not self.full:
                self.full = True
                self._on_change(True, f"the disk is full: {self._consequence}")
        else:
            if self.full and not small:
                self.full = False
                self._on_change(False, f"the disk has space again; while it was full: {self._consequence}")
