"""An sqlite file, read and checked without writing anything."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError, first_line
from pipeline.storage.database_kinds import Reader, Role
from pipeline.storage.folders import existing_folder

LOCK_SEC = 5.0
"""How long a lock of another program is waited for."""


@contextlib.contextmanager
def reading(path: Path, role: Role) -> Iterator[Reader]:
    """Read a file; one that is missing or empty has no tables. Raises the role's errors."""
    if not _is_filled(path, role):
        yield Reader(frozenset(), lambda query: ())
        return
    with _reading(path, role) as reader:
        yield reader


def _is_filled(path: Path, role: Role) -> bool:
    """Whether there is an sqlite file with content; an error where there is something else."""
    try:
        if not path.exists():
            existing_folder(path.parent)  # nothing on the way is a file
            return False
        if path.is_dir():
            raise role.error(
                f"{role.name} {{seen}} is a folder",
                rule="an sqlite file is needed",
                seen=str(path),
                fix=f"write {role.option} sqlite:///{path}/FILE.db",
            )
        head = b"?"
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(16)
    except OSError as error:
        raise _unusable(path, role, "read", error) from error
    if head not in (b"", b"SQLite format 3\0"):
        raise role.error(
            f"{role.name} {{seen}} is no sqlite file", seen=str(path), fix=f"name another with {role.option}"
        )
    return head != b""


def _unusable(path: Path, role: Role, verb: str, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return role.error(
        f"{role.name} {{seen}} cannot be {verb}",
        rule=reason[:1].lower() + reason[1:],
        seen=str(path),
        fix=f"make its folder and file yours to {'write' if verb == 'written' else 'read'}, "
        f"or correct {role.option}",
    )


@contextlib.contextmanager
def _reading(path: Path, role: Role) -> Iterator[Reader]:
    with contextlib.ExitStack() as stack:
        try:
            session = _connect(path, _quiet_mode(path), stack)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_READONLY_ROLLBACK":
                raise _error(path, role, error) from error
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / path.name
            for suffix in ("", "-journal"):  # a killed writer's; rolling it back would write
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
            session = _connect(copy, "mode=rw", stack)
        except sqlite3.DatabaseError as error:
            raise _error(path, role, error) from error
        try:
            names = session.execute("select name from sqlite_master where type = 'table'").fetchall()
            tables = frozenset(name for (name,) in names if not name.startswith("sqlite_"))
            yield Reader(tables, lambda query: session.execute(query).fetchall())
        except sqlite3.Error as error:
            raise _error(path, role, error) from error


def _connect(path: Path, mode: str, stack: contextlib.ExitStack) -> sqlite3.Connection:
    session = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, timeout=LOCK_SEC, isolation_level=None)
    stack.callback(session.close)
    session.execute("pragma schema_version").fetchall()
    return session


def _quiet_mode(path: Path) -> str:
    """How to open a file so that nothing is written beside it, which reading a write-ahead log would do."""
    with path.open("rb") as file:
        ahead = file.read(20)[18:20] == b"\2\2"
    log = path.with_name(f"{path.name}-wal")
    return "immutable=1" if ahead and not (log.exists() and log.stat().st_size) else "mode=ro"


def _error(path: Path, role: Role, error: sqlite3.Error) -> UserError:
    code = getattr(error, "sqlite_errorname", "")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return role.away(
            f"{role.name} {{seen}} is locked by another program",
            rule=f"no lock within {LOCK_SEC:g} s",
            seen=str(path),
            fix="close what holds it, or wait for it",
        )
    verb = "written" if code.startswith("SQLITE_READONLY") else "read"
    return role.error(
        f"{role.name} {{seen}} cannot be {verb}",
        rule=first_line(error),
        seen=str(path),
        fix=f"restore it from a backup, or name another with {role.option}",
    )


def check_writable(path: Path, role: Role) -> None:
    """The file and its folder, in which sqlite makes a journal; and whether another program locks it."""
    try:
        folder = existing_folder(path.parent)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(0, f"the folder {folder} may not be written")
        if not path.exists():
            return
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        raise _unusable(path, role, "written", error) from error
    journals = [path.with_name(f"{path.name}{suffix}") for suffix in ("-journal", "-wal")]
    if path.stat().st_size and _quiet_mode(path) == "mode=ro" and not any(map(Path.exists, journals)):
        with contextlib.ExitStack() as stack:
            try:
                _connect(path, "mode=rw", stack).execute("begin immediate")  # writes nothing
            except sqlite3.Error as error:
                raise _error(path, role, error) from error
