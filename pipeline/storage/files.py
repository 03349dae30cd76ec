"""How a file is written and read here: whole or not at all.

Owns: writing under a temporary name in the same folder and renaming; reading JSON that may be torn; what a
full disk is, and that it is told once; where the cache lies. Refuses: knowing any file's name or meaning.
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

log = logging.getLogger(__name__)

_LEAST = 1_000_000
"""A disk with fewer bytes than these is full: no champion fits."""


def cache_root() -> Path:
    """Where what can be made or fetched again is kept: $GANSWEEP_CACHE, else ~/.cache/gansweep."""
    return Path(os.environ.get("GANSWEEP_CACHE") or "~/.cache/gansweep").expanduser()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at the end; on an error it vanishes instead.

    It has the same suffix, for writers that look at it.
    """
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` in place of the file at `path`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Put `text` (UTF-8) in place of the file at `path`."""
    write_bytes(path, text.encode())


def append_bytes(path: Path, data: bytes) -> None:
    """Add `data` to the end of the file at `path`, all of it or nothing; one writer at a time."""
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
    """The object in a JSON file; empty where there is none or it cannot be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    if path.is_file():
        total = path.stat().st_size
    return total


def readable(count: float) -> str:
    """A number of bytes for people: `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def is_full(error: BaseException) -> bool:
    """Whether the disk, or the user's share of it, has no space left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_space(error: BaseException, folder: Path) -> bool:
    """Whether `error` comes of a full disk; libraries have words of their own for it."""
    return is_full(error) or (isinstance(error, Exception) and shutil.disk_usage(folder).free < _LEAST)


def _log_change(full: bool, text: str) -> None:
    log.log(logging.WARNING if full else logging.INFO, "%s", text)


class DiskSpace:
    """A writer's patience with a full disk: `full` while it is, told once when it begins and when it ends.

    what: what happens meanwhile, as the end of a sentence. on_change: called with whether the disk is full, and a
    line for people; by default the line is logged.
    """

    def __init__(self, what: str, on_change: Callable[[bool, str], object] = _log_change) -> None:
        self.full = False
        self._what, self._on_change = what, on_change

    @contextmanager
    def awaited(self, *, small: bool = False) -> Iterator[None]:
        """Inside, a full disk raises nothing: the writer looks at `full` and tries again later.

        A `small` write that found room proves nothing for the others: it never says that there is space.
        """
        try:
            yield
        except OSError as error:
            if not is_full(error):
                raise
            if not self.full:
                self.full = True
                self._on_change(True, f"the disk is full: {self._what}")
        else:
            if self.full and not small:
                self.full = False
                self._on_change(False, f"the disk has space again; while it was full: {self._what}")
