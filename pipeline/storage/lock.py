"""The lock of a sweep: one process at a time works on it.

A sweep in a folder is locked by a file in it; a sweep in an object store by a lock in its study's database.
`lock_file` locks any file; a file system without locks is an error of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from pipeline.config import SweepPaths
from pipeline.errors import SweepError, first_line, redact
from pipeline.storage import postgres
from pipeline.storage.folders import not_writable
from pipeline.storage.url import advisory_lock_key

_HOLDER = """
select application_name from pg_stat_activity join pg_locks using (pid)
where locktype = 'advisory' and granted and objsubid = 1
and (classid::bigint << 32 | objid::bigint) = %s
"""


_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
"""What flock answers where another process holds the lock; all else means that there are no locks here."""


@contextlib.contextmanager
def sweep_lock(paths: SweepPaths) -> Iterator[None]:
    """Make the sweep's folder where it is missing, and hold its lock during the block.

    The kernel releases it when the process dies.

    Raises:
        SweepError: another process holds it (the message names that process), the folder cannot be written,
            or its file system has no locks; nothing is left of what was made.
    """
    fix = "make it yours, or choose another --out"
    with contextlib.ExitStack() as undo:
        undo.callback(_remove, [path for path in _up_from(paths.lock) if not path.exists()])
        try:
            paths.root.mkdir(parents=True, exist_ok=True)
            file = paths.lock.open("a+", encoding="utf-8")
        except OSError as error:
            raise not_writable("the sweep's folder", paths.root, error, fix) from error
        undo.callback(file.close)
        held = lock_file(file, paths.lock, wait=False)
        undo.pop_all()
    with file:
        if not held:
            file.seek(0)
            raise _in_use(paths.root.name, file.read().strip())
        with contextlib.suppress(OSError):  # a full disk: the lock is held all the same
            file.truncate(0)
            file.write(f"{_me()}\n")
            file.flush()
        yield


def _up_from(path: Path) -> tuple[Path, ...]:
    return path.absolute(), *path.absolute().parents


def _remove(paths: Iterable[Path]) -> None:
    """Remove the lock file and the empty folders among `paths`, the innermost first."""
    with contextlib.suppress(OSError):  # not there, or not empty: another process works in it
        for path in paths:
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


class NoLocksError(SweepError):
    """The file system has no locks."""


def lock_file(file: IO[str] | IO[bytes], path: Path, *, wait: bool = True) -> bool:
    """Take the exclusive lock of an open file; returns whether it is held now.

    path: of the file, for the error. wait: until another process gives it back; False = return False then.

    Raises:
        NoLocksError: the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise no_locks(path.parent, error) from error
    return True


def check_locks(folder: Path) -> None:
    """NoLocksError where files in `folder`, which exists, cannot be locked; writes nothing.

    Tried with a file without a name. Where there is none of these (NFS), with the folder: then a lock may
    still be refused later.
    """
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # what SQLite takes
    except OSError as error:
        if error.errno not in _HELD:
            raise no_locks(folder, error) from error
    finally:
        os.close(descriptor)


def no_locks(folder: Path, error: OSError) -> NoLocksError:
    """The error for a file system whose answer to a lock is `error`."""
    return NoLocksError(
        "the file system has no file locks: {seen}",
        rule="a lock makes sure that one process at a time writes a sweep and its databases",
        seen=f"{folder} (flock: {error.strerror or error})",
        fix="choose a folder on a local disk, or mount this one with locks "
        "(NFS: a running lock daemon, no -o nolock; Lustre: -o flock; FUSE: one that has flock)",
    )


@contextlib.contextmanager
def store_lock(url: str, storage: str) -> Iterator[None]:
    """Hold the lock of the sweep in the object store at `url` during the block.

    The lock is an advisory lock in the study's database, which all machines of the sweep reach. PostgreSQL
    releases it when the process or its connection ends.

    storage: the study's database, `postgresql://...`.

    Raises:
        SweepError: another process holds it, or the database does not answer.
    """
    import psycopg

    key, name = advisory_lock_key(url), f"gansweep {_me()}"[:63]
    alive = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 6}
    try:
        session = postgres.connect(storage, application_name=name, **alive)
    except psycopg.Error as error:
        raise SweepError(
            "the study's database does not answer: {seen}",
            rule="the lock of a sweep in an object store is held there",
            seen=f"{redact(storage)} ({redact(first_line(error))})",
            fix="start it, correct --storage, or export PGUSER and PGPASSWORD",
        ) from error
    with contextlib.closing(session):
        row = session.execute("select pg_try_advisory_lock(%s)", [key]).fetchone()
        if not (row and row[0]):
            holder = session.execute(_HOLDER, [key]).fetchone()
            raise _in_use(url, str(holder[0]).removeprefix("gansweep ") if holder else "")
        yield


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _in_use(name: str, holder: str) -> SweepError:
    return SweepError(
        "the sweep is in use: {seen}",
        rule="only one process may work on a sweep",
        seen=f"{name} is held by {holder or 'another process'}",
        fix="wait for it, or stop it",
    )
