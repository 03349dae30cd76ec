"""The lock of a sweep: one process works on it, of this machine's folder or, in a store, of all machines.

Owns: who holds it. Refuses: looking into the folder.
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
from pipeline.storage.url import lock_url

_HOLDER = """
select application_name from pg_stat_activity join pg_locks using (pid)
where locktype = 'advisory' and granted and objsubid = 1
and (classid::bigint << 32 | objid::bigint) = %s
"""


@contextlib.contextmanager
def sweep_lock(paths: SweepPaths) -> Iterator[None]:
    """Hold the sweep's folder; a second process is told who does. The kernel lets go when a process dies.

    Raises:
        SweepError: another process holds it.
    """
    with paths.lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise _taken(paths.root.name, file.read().strip()) from error
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            file.truncate(0)
            file.write(f"{_me()}\n")
            file.flush()
        yield


@contextlib.contextmanager
def store_lock(url: str, storage: str) -> Iterator[None]:
    """Hold the sweep in the store at `url`, by its study's database, which all its machines reach.

    PostgreSQL lets go when the process, or its connection, is gone.

    Raises:
        SweepError: another process holds it, or the database does not answer.
    """
    import psycopg

    key, plain = lock_url(url), re.sub(r"^postgres(ql)?(\+\w+)?:", "postgresql:", storage)
    try:
        session = psycopg.connect(
            plain, autocommit=True, connect_timeout=10, application_name=f"gansweep {_me()}"[:63],
            keepalives_idle=30, keepalives_interval=10, keepalives_count=6,
        )  # fmt: skip
    except psycopg.Error as error:
        raise SweepError(
            "the study's database answers",
            seen=f"{redact(storage)} ({redact(first_line(error))})",
            fix="start it, correct --storage, or export PGUSER and PGPASSWORD",
        ) from error
    with contextlib.closing(session):
        row = session.execute("select pg_try_advisory_lock(%s)", [key]).fetchone()
        if not (row and row[0]):
            holder = session.execute(_HOLDER, [key]).fetchone()
            raise _taken(url, str(holder[0]).removeprefix("gansweep ") if holder else "")
        yield


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _taken(name: str, holder: str) -> SweepError:
    return SweepError(
        "one process works on a sweep",
        seen=f"{name} held by {holder or 'another'}",
        fix="wait for it, or stop it",
    )
