"""Whose tables a database holds, and whether they are of the version of MLflow or Optuna that is installed.

Both keep the version in `alembic_version`. The versions that the installed one knows are read from the
migration scripts in its package, without importing it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError, redact
from pipeline.storage.addresses import sqlite_path
from pipeline.storage.database_kinds import Reader, Role, kind_of, shown

_VERSION = "alembic_version"
_PROGRAMS = {
    "Optuna": {"studies", "trials", "trial_params"},
    "MLflow": {"experiments", "runs", "metrics"},
    "Django": {"django_migrations"},
    "Airflow": {"dag", "dag_run"},
}
"""Tables by which a program's database is known."""


@dataclass(frozen=True)
class Program:
    """A program that keeps tables in a database.

    scripts: the folder of its migrations in its package. tables: those that it makes first.
    first: the one of them that has a row as soon as anything is kept. upgrade: the command for an older
    schema, before the address. completes: the kinds of database in which it completes half-made tables.
    """

    name: str
    package: str
    scripts: str
    tables: frozenset[str]
    first: str
    upgrade: str
    completes: tuple[str, ...]

    @property
    def installed(self) -> str:
        """Its name with the version that is installed."""
        return f"{self.name} {importlib.metadata.version(self.package)}"


@dataclass(frozen=True)
class Revisions:
    """The versions of a schema that a program knows. head: the newest, on which it works."""

    head: str
    known: frozenset[str]


def revisions_of(program: Program) -> Revisions | None:
    """The revisions in the migration scripts of the installed program; None where they are not found."""
    spec = importlib.util.find_spec(program.package)
    known: set[str] = set()
    followed: set[str] = set()
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in (Path(folder) / program.scripts).glob("*.py"):
            text = path.read_text(encoding="utf-8", errors="replace")
            known |= _names("revision", text)
            followed |= _names("down_revision", text)
    heads = known - followed
    return Revisions(heads.pop(), frozenset(known)) if len(heads) == 1 else None


def _names(variable: str, text: str) -> set[str]:
    """The texts that a script assigns to a variable: none, one, or several."""
    line = re.search(rf"(?m)^{variable}\b[^=\n]*=(.*)$", text)
    return set(re.findall(r"""["']([^"']+)["']""", line[1])) if line else set()


def check_schema(url: str, reader: Reader, program: Program, role: Role) -> bool:
    """Whether the database has the tables of the installed `program`; False where they are still to be made.

    Raises:
        UserError: of the role: tables of another program, of an older or newer version, or half made.
    """
    if not reader.tables:
        return False
    present = {str(row[0]) for row in reader.rows(_VERSION, "version_num")}
    revisions, missing = revisions_of(program), program.tables - reader.tables
    others = reader.tables - program.tables - {_VERSION}
    known = revisions.known if revisions else frozenset()
    if missing and others and not (present and present <= known):
        raise _of_another_program(url, reader.tables, role)
    filled = bool(reader.rows(program.first, "1"))
    completes = not filled and kind_of(url) in program.completes
    if completes and not present:
        return False
    if not present or missing == program.tables:
        raise _half_made(url, f"it lacks {_few(missing) or 'the version of its schema'}", filled, "", role)
    if revisions and not present <= known:
        raise _newer(url, present, revisions, program, role)
    if revisions and present != {revisions.head}:
        if filled or completes:
            raise _older(url, present, revisions, program, role)
        why = f"nothing is kept in it; {_both(present, revisions, program)}"
        raise _half_made(url, why, filled, _upgrade(url, program), role)
    if missing:
        raise _half_made(url, f"it lacks {_few(missing)}", filled, "", role)
    return True


def _few(tables: Set[str]) -> str:
    return ", ".join(sorted(tables)[:4])


def _of_another_program(url: str, tables: Set[str], role: Role) -> UserError:
    owner = next((name for name, own in _PROGRAMS.items() if own <= tables), "")
    names = ", ".join(sorted(tables)[:3])
    return role.error(
        f"{role.name} {{seen}} is the database of another program",
        rule=f"it holds {owner or 'other'} tables: {names} ...; {role.program} needs a database of its own",
        seen=shown(url),
        fix=f"name another with {role.option}",
    )


def _half_made(url: str, why: str, filled: bool, upgrade: str, role: Role) -> UserError:
    path = sqlite_path(url)
    away = f"delete it: rm {shlex.quote(str(path))}" if path else "drop its tables"
    away += f"; or, if it is yours and only old, {upgrade}" if upgrade else ""
    return role.error(
        f"{role.name} {{seen}} is damaged"
        if filled
        else f"{role.name} {{seen}} was never finished being made",
        rule=why,
        seen=shown(url),
        fix=f"restore it from a backup, or name another with {role.option}" if filled else away,
    )


def _older(url: str, present: Set[str], revisions: Revisions, program: Program, role: Role) -> UserError:
    return role.error(
        f"{role.name} {{seen}} is of an older {program.name}",
        rule=_both(present, revisions, program),
        seen=shown(url),
        fix=_upgrade(url, program),
    )


def _upgrade(url: str, program: Program) -> str:
    return f"back it up, then: {program.upgrade} {shlex.quote(redact(url))}"


def _newer(url: str, present: Set[str], revisions: Revisions, program: Program, role: Role) -> UserError:
    return role.error(
        f"{role.name} {{seen}} is of a newer {program.name}, or of another program",
        rule=_both(present, revisions, program),
        seen=shown(url),
        fix=f"install the {program.name} that made it (pip install --upgrade {program.package}), or name "
        f"another with {role.option}; `{program.upgrade}` does not help",
    )


def _both(present: Set[str], revisions: Revisions, program: Program) -> str:
    return f"its schema is {', '.join(sorted(present))}; {program.installed} works on {revisions.head}"
