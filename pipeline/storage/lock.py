"""The lock of a sweep: one process at a time works on it.

A sweep in a folder is locked by a file in it; a sweep in an object store by a lock in its study's database.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
from collections.abc import Iterator

from pipeline.config import SweepPaths
from pipeline.errors import SweepError, first_line, redact
from pipeline.storage.url import advisory_lock_key

_HOLDER = """
select application_name from pg_stat_activity join pg_locks using (pid)
where locktype = 'advisory' and granted and objsubid = 1
and (classid::bigint << 32 | objid::bigint) = %s
"""


@contextlib.contextmanager
def sweep_lock(paths: SweepPaths) -> Iterator[None]:
    """Hold the lock of a sweep's folder during the block. The kernel releases it when the process dies.

    Raises:
        SweepError: another process holds it; the message names that process.
    """
    with paths.lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise _locked(paths.root.name, file.read().strip()) from error
        with contextlib.suppress(OSError):  # a full disk: the lock is held all the same
            file.truncate(0)
            file.write(f"{_me()}\n")
            file.flush()
        yield


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

    key, dsn = advisory_lock_key(url), re.sub(r"^postgres(ql)?(\+\w+)?:", "postgresql:", storage)
    try:
        session = psycopg.connect(
            dsn, autocommit=True, connect_timeout=10, application_name=f"gansweep {_me()}"[:63],
            keepalives_idle=30, keepalives_interval=10, keepalives_count=6,
        )  # fmt: skip
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
            raise _locked(url, str(holder[0]).removeprefix("gansweep ") if holder else "")
        yield


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _locked(name: str, holder: str) -> SweepError:
    return SweepError(
        "the sweep is in use: {seen}",
        rule="only one process may work on a sweep",
        seen=f"{name} is held by {holder or 'another process'}",
        fix="wait for it, or stop it",
    )
