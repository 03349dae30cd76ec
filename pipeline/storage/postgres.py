"""A PostgreSQL database, read and checked without writing anything."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from pipeline.errors import UserError, first_line, redact
from pipeline.storage.database_kinds import Reader, Role
from pipeline.storage.proxies import is_loopback

ANSWER_SEC = 10
"""How long a database may take to accept a connection."""

_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][\w+]*)://(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:(?:\[(?P<ipv6>[^/?]+)\]|(?P<host>[^/:?]+))?(?::(?P<port>[^/?]*))?)?"
    r"(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?",
    re.S,
)
"""As SQLAlchemy reads an address."""


def parts_of(url: str) -> dict[str, str]:
    """What an address says to libpq: host, port, user, password, dbname, and the options after `?`."""
    parts = _ADDRESS.fullmatch(url)
    assert parts is not None
    named = {
        "host": parts["ipv6"] or parts["host"],
        "port": parts["port"],
        "user": unquote(parts["user"] or ""),
        "password": unquote(parts["password"] or ""),
        "dbname": unquote(parts["database"] or ""),
    }
    return {key: value for key, value in named.items() if value} | dict(parse_qsl(parts["query"] or ""))


@contextlib.contextmanager
def reading(url: str, role: Role) -> Iterator[Reader]:
    import psycopg

    try:
        session = connect(url)
    except psycopg.Error as error:
        raise _no_connection(url, role, error) from error
    with contextlib.closing(session):
        try:
            session.read_only = True
            names = session.execute(
                "select tablename from pg_tables where schemaname = any(current_schemas(false))"
            ).fetchall()
            tables = frozenset(str(name) for (name,) in names)
            yield Reader(tables, lambda query: session.execute(query).fetchall())
        except psycopg.errors.InsufficientPrivilege as error:
            raise _not_allowed(url, role, "read", first_line(error)) from error
        except psycopg.Error as error:
            raise _no_connection(url, role, error) from error


def connect(url: str, **changes: object) -> Any:
    """A connection in autocommit mode; raises psycopg.Error. changes: other values of libpq's parameters."""
    import psycopg

    parts: Mapping[str, Any] = {"connect_timeout": ANSWER_SEC, **parts_of(url), **changes}
    return psycopg.connect(**parts, autocommit=True)


def _no_connection(url: str, role: Role, error: Exception) -> UserError:
    host, port, database, _ = _place(url)
    if _is_missing(url, database):
        return role.error(
            f"{role.name} {{seen}} is not there",
            rule=f"the server has no database {database}",
            seen=redact(url),
            fix=f"make it: createdb -h {host} -p {port} {database}; or correct {role.option}",
        )
    return role.away(
        f"{role.name} does not answer",
        seen=f"{redact(url)} ({redact(first_line(error))})",
        fix=f"start it, correct {role.option}, or export PGUSER and PGPASSWORD",
    )


def _place(url: str) -> tuple[str, str, str, str]:
    """Host, port, database and options of a connection, with libpq's defaults; this machine is localhost."""
    parts, environment = parts_of(url), os.environ
    host = parts.get("host") or environment.get("PGHOST") or "localhost"
    user = parts.get("user") or environment.get("PGUSER") or ""
    with contextlib.suppress(OSError, KeyError):  # a user without a name
        user = user or getpass.getuser()
    return (
        "localhost" if host.startswith("/") or is_loopback(host) else host.lower(),
        parts.get("port") or environment.get("PGPORT") or "5432",
        parts.get("dbname") or environment.get("PGDATABASE") or user,
        parts.get("options", ""),
    )


def same_database(one: str, other: str) -> bool:
    """Whether two addresses are of one database: by their parts, or because both servers began at once."""
    places = _place(one), _place(other)
    if places[0] == places[1]:
        return True
    if places[0][2:] != places[1][2:]:
        return False
    began = _began(one)
    return began is not None and began == _began(other)


def _began(url: str) -> object:
    """When the server was started, to the microsecond; None where it does not answer."""
    import psycopg

    with contextlib.suppress(psycopg.Error), contextlib.closing(connect(url)) as session:
        return session.execute("select pg_postmaster_start_time()").fetchone()[0]
    return None


def _is_missing(url: str, database: str) -> bool:
    """Whether the server answers this user but has no such database."""
    import psycopg

    try:
        with contextlib.closing(connect(url, dbname="postgres")) as session:
            found = session.execute("select 1 from pg_database where datname = %s", [database]).fetchone()
    except psycopg.Error:
        return False
    return found is None


def _not_allowed(url: str, role: Role, verb: str, reason: str) -> UserError:
    return role.error(
        f"{role.name} {{seen}} cannot be {verb}",
        rule=reason,
        seen=redact(url),
        fix="grant that to this user, or connect as another one",
    )


_MAKES_NO_TABLES = "select coalesce(not has_schema_privilege(current_schema(), 'CREATE'), true)"
_REFUSED = """
select relname from pg_class c join pg_namespace n on n.oid = relnamespace
where nspname = any(current_schemas(false)) and case relkind
  when 'r' then not (has_table_privilege(c.oid, 'SELECT') and has_table_privilege(c.oid, 'INSERT')
                     and has_table_privilege(c.oid, 'UPDATE'))
  when 'S' then not (has_sequence_privilege(c.oid, 'USAGE') or has_sequence_privilege(c.oid, 'UPDATE'))
  else false end
order by relname
"""


def check_writable(url: str, role: Role) -> None:
    import psycopg

    try:
        session = connect(url)
    except psycopg.Error as error:
        raise _no_connection(url, role, error) from error
    with contextlib.closing(session):
        tables = session.execute(
            "select count(*) from pg_tables where schemaname = any(current_schemas(false))"
        ).fetchone()[0]
        read_only = session.execute("show transaction_read_only").fetchone()[0] == "on"
        if read_only:
            raise _not_allowed(
                url, role, "written", "its transactions are read-only: a standby, or a setting"
            )
        if not tables and session.execute(_MAKES_NO_TABLES).fetchone()[0]:
            raise _not_allowed(url, role, "written", "this user may make no tables in its schema")
        refused = [str(name) for (name,) in session.execute(_REFUSED).fetchall()] if tables else []
        if refused:
            names = ", ".join(refused[:3]) + (" ..." if len(refused) > 3 else "")
            raise _not_allowed(url, role, "written", f"this user may not write {names}")
