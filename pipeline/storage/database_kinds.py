"""Databases by their address: of which kind one is, whether its driver is there, how errors speak of it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError, redact
from pipeline.storage.addresses import sqlite_path

_DRIVERS = {
    "sqlite": {"": "sqlite3", "pysqlite": "sqlite3"},
    "postgresql": {"psycopg": "psycopg", "psycopg2": "psycopg2", "pg8000": "pg8000"},
    "mysql": {"": "MySQLdb", "mysqldb": "MySQLdb", "pymysql": "pymysql", "mysqlconnector": "mysql"},
    "mariadb": {"": "MySQLdb", "mysqldb": "MySQLdb", "pymysql": "pymysql", "mariadbconnector": "mariadb"},
    "mssql": {"": "pyodbc", "pyodbc": "pyodbc", "pymssql": "pymssql"},
}
"""Kind of database -> driver in the address -> the module that it needs."""


@dataclass(frozen=True)
class Role:
    """How errors speak of a database.

    name: `the tracking store`. option: names it, `--tracking-uri`. program: whose tables it has.
    error: the type of all errors; away: of those that pass by themselves (no answer, locked).
    """

    name: str
    option: str
    program: str
    error: type[UserError]
    away: type[UserError]


@dataclass(frozen=True)
class Reader:
    """An open database. tables: their names; select: the rows of a query."""

    tables: frozenset[str]
    select: Callable[[str], Sequence[Sequence[Any]]]

    def rows(self, table: str, *columns: str) -> Sequence[Sequence[Any]]:
        """These columns of all rows; none where there is no such table."""
        return self.select(f"select {', '.join(columns)} from {table}") if table in self.tables else ()


def kind_of(url: str) -> str:
    """`sqlite`, `postgresql`, `mysql` ...: the kind of database that an address names."""
    scheme = url.partition(":")[0].partition("+")[0].lower()
    return "postgresql" if scheme == "postgres" else scheme


def shown(url: str) -> str:
    """A database as messages name it: its file, or its address without user and password."""
    return str(sqlite_path(url) or redact(url))


def check_address(url: str, role: Role) -> None:
    """Raise `role.error` where an address is of no kind of database, or its driver is not installed."""
    kind = kind_of(url)
    scheme = url.partition(":")[0]
    if "://" not in url or (kind not in _DRIVERS and kind not in _plugins()):
        fix = "write postgresql://HOST/DATABASE or sqlite:////PATH/FILE.db"
        raise role.error(f"{role.option} {{seen}} is no database URL", seen=redact(url), fix=fix)
    if kind == "sqlite" and sqlite_path(url) is None:
        raise role.error(
            f"{role.option} {{seen}} is a database in memory",
            rule="it would be lost with this process",
            seen=redact(url),
            fix=f"name a file: {role.option} sqlite:////PATH/FILE.db",
        )
    if scheme.lower() == "postgres":
        fix = f"write {redact(url).replace('postgres://', 'postgresql://', 1)}"
        raise role.error(f"{role.option} {{seen}}: SQLAlchemy has no `postgres`", seen=redact(url), fix=fix)
    _check_driver(url, scheme.lower().partition("+")[2], role)


def _check_driver(url: str, driver: str, role: Role) -> None:
    drivers = _DRIVERS.get(kind_of(url), {driver: ""})
    module = drivers.get(driver, "") if driver or "" in drivers else _default_postgres_driver()
    if driver and driver not in drivers:
        rule = f"known ones: {', '.join(filter(None, drivers))}"
        fix = f"write {kind_of(url)}://..."
        raise role.error(
            f"{role.option} {{seen}}: its driver {driver} is not supported",
            rule=rule,
            seen=redact(url),
            fix=fix,
        )
    if module and importlib.util.find_spec(module) is None:
        other = "postgresql+psycopg://" if kind_of(url) == "postgresql" else "postgresql://HOST/DATABASE"
        raise role.error(
            f"{role.option} {{seen}} needs the driver {module}, which is not installed",
            seen=redact(url),
            fix=f"pip install it, or write {other}",
        )


def _default_postgres_driver() -> str:
    version = importlib.metadata.version("sqlalchemy").split(".")
    return "psycopg" if (int(version[0]), int(re.sub(r"\D.*", "", version[1]))) >= (2, 1) else "psycopg2"


def _plugins() -> set[str]:
    found = importlib.metadata.entry_points(group="sqlalchemy.dialects")
    return {entry.name.partition(".")[0] for entry in found}
