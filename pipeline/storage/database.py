"""What a database holds, read without writing, and whether it can be written: sqlite files and PostgreSQL.

Of databases of other kinds (MySQL, SQL Server ...) nothing more than the driver is known.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.storage import postgres, sqlite_file
from pipeline.storage.addresses import sqlite_path
from pipeline.storage.database_kinds import Reader, Role, kind_of, shown

log = logging.getLogger(__name__)


def can_read(url: str) -> bool:
    """Whether `reading` knows how to read the kind of database that an address names."""
    return kind_of(url) in ("sqlite", "postgresql")


@contextlib.contextmanager
def reading(url: str, role: Role) -> Iterator[Reader]:
    """Read the database of an address for which `can_read` holds; an sqlite file that is missing is empty.

    Raises:
        UserError: of the role: it does not answer, is no database, or may not be read.
    """
    path = sqlite_path(url)
    with postgres.reading(url, role) if path is None else sqlite_file.reading(path.resolve(), role) as reader:
        yield reader


def check_writable(url: str, role: Role) -> None:
    """Check, without writing, that this user may write the database, or may make its file.

    Raises:
        UserError: of the role.
    """
    path = sqlite_path(url)
    if path is not None:
        sqlite_file.check_writable(path.resolve(), role)
    elif can_read(url):
        postgres.check_writable(url, role)
    else:
        log.info(f"{shown(url)} is not looked into: only sqlite and PostgreSQL are")


def same_database(one: str, other: str) -> bool:
    """Whether two addresses are known to be of one database."""
    paths = sqlite_path(one), sqlite_path(other)
    if paths[0] and paths[1]:
        return _same_file(paths[0].resolve(), paths[1].resolve())
    return kind_of(one) == kind_of(other) == "postgresql" and postgres.same_database(one, other)


def _same_file(one: Path, other: Path) -> bool:
    return one == other or (os.path.exists(one) and os.path.exists(other) and one.samefile(other))
