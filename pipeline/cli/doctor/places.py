"""Checks of where a sweep writes: the folders, their locks and free space, or an object store."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli.doctor.finding import Finding, judge
from pipeline.storage.files import cache_root
from pipeline.storage.folders import (
    OUT_FIX,
    Folder,
    check_temporary_folder,
    database_folders,
    free_bytes,
)
from pipeline.storage.lock import check_locks
from pipeline.storage.object_store import open_store
from pipeline.storage.readable import readable_bytes

_LITTLE_BYTES = 1_000_000_000
"""Free space with which a sweep of small images ends well."""


def check_folders(out: Path, tracking_uri: str, storage: str) -> list[Finding]:
    """The folder `out` and those of sqlite files elsewhere, none of which need exist."""
    folders = {out.absolute(): Folder(out.absolute(), "--out", OUT_FIX)}
    for folder in database_folders(tracking_uri, storage):
        if folder.path.exists() or not folder.path.is_relative_to(out.absolute()):
            folders.setdefault(folder.path, folder)
    return [found for folder in folders.values() for found in _check_folder(folder)]


def _check_folder(folder: Folder) -> list[Finding]:
    name = f"{folder.name}, {folder.path}"

    def check() -> list[str]:
        check_locks(folder.check())
        free = free_bytes(folder.path)
        little = f"only {readable_bytes(free)} are free in {name}: free some, or {folder.fix}"
        return [little] if free < _LITTLE_BYTES else []

    return judge("disk", f"{name}, can be written", check)


def check_store(url: str) -> list[Finding]:
    """Whether the object store at `url` answers and can be written."""

    def check() -> list[str]:
        open_store(url).check()
        return []

    return judge("store", f"{url} answers, and can be written", check)


def check_scratch() -> list[Finding]:
    """The cache, and the folder for temporary files."""

    def check() -> list[str]:
        check_temporary_folder()
        cache_root()
        return []

    return judge("cache", "the cache and the temporary folder can be written", check)
