"""The making of a database, by one process at a time, and never seen half made."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.storage import postgres
from pipeline.storage.addresses import sqlite_address, sqlite_path
from pipeline.storage.database_kinds import kind_of
from pipeline.storage.files import cache_root

WAIT_SEC = 120.0
"""How long another process is waited for: a suspended one would hold the lock for ever."""
_KEY = int.from_bytes(hashlib.sha256(b"gansweep: one at a time").digest()[:8], "big", signed=True)


@contextlib.contextmanager
def alone_with(url: str) -> Iterator[None]:
    """Work on what `url` names while no other gansweep does, as far as there is a lock to be had.

    An sqlite file is locked by its folder, for all processes that see it; a PostgreSQL database by an
    advisory lock, for all that reach it; anything else for the processes of this user and machine.
    """
    path = sqlite_path(url)
    if kind_of(url) == "postgresql":
        with _postgres_lock(url):
            yield
        return
    folder = (
        path.resolve().parent if path else cache_root() / "locks" / hashlib.sha256(url.encode()).hexdigest()
    )
    with _folder_lock(folder):
        yield


@contextlib.contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a file system without locks
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            held.callback(os.close, descriptor)
            _wait_for(descriptor)
            held.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
        yield


def _wait_for(descriptor: int) -> None:
    end = time.monotonic() + WAIT_SEC
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def _postgres_lock(url: str) -> Iterator[None]:
    import psycopg

    with contextlib.ExitStack() as held:
        with contextlib.suppress(psycopg.Error):  # it does not answer: the caller's own request fails
            session = held.enter_context(contextlib.closing(postgres.connect(url)))
            session.execute(f"set lock_timeout = '{WAIT_SEC:g}s'")
            session.execute("select pg_advisory_lock(%s)", [_KEY])
        yield


def make_sqlite(url: str, make: Callable[[str], object]) -> None:
    """Have `make` make a database in an sqlite file, unless it is there; several processes may ask at once.

    make: gets the address of another file; what it makes there is put in its place as a whole, so that a kill
    leaves no file that would stay broken.
    """
    path = sqlite_path(url)
    assert path is not None
    path = path.resolve()
    if _is_filled(path):
        return
    with alone_with(url), tempfile.TemporaryDirectory(prefix="gansweep-") as folder:
        if _is_filled(path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(folder) / "new.db"
        make(sqlite_address(aside))
        _put_in_place(aside, path)


def _is_filled(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _put_in_place(made: Path, path: Path) -> None:
    """Copy a database to `path` in one step, unless another process has made one there meanwhile."""
    aside = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        with (
            contextlib.closing(sqlite3.connect(made)) as source,
            contextlib.closing(sqlite3.connect(aside)) as copy,
        ):
            source.backup(copy)
        try:
            os.link(aside, path)
        except OSError:  # an empty file is there, or the file system has no links
            if not _is_filled(path):
                os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
