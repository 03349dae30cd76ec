"""The database of studies that `--storage` names: its check, which writes nothing, and its making."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from pipeline.errors import SweepError, first_line, redact
from pipeline.storage.addresses import sqlite_path
from pipeline.storage.database import can_read, check_writable, reading, same_database
from pipeline.storage.database_kinds import Role, check_address, shown
from pipeline.storage.database_schema import Program, check_schema
from pipeline.storage.making import alone_with, make_sqlite
from pipeline.storage.postgres import ANSWER_SEC

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

OPTUNA = Program(
    name="Optuna",
    package="optuna",
    scripts="storages/_rdb/alembic/versions",
    tables=frozenset(
        {
            *("studies", "study_directions", "study_user_attributes", "study_system_attributes", "trials"),
            *("trial_user_attributes", "trial_system_attributes", "trial_params", "trial_values"),
            *("trial_intermediate_values", "trial_heartbeats", "version_info"),
        }
    ),
    first="studies",
    upgrade="optuna storage upgrade --storage",
    completes=("sqlite", "postgresql"),
)

STUDIES = Role("the study's database", "--storage", "Optuna", SweepError, SweepError)


def check_storage(url: str, name: str, *, new: bool, out: Path | None = None, tracking_uri: str = "") -> None:
    """Check, without writing, that the study's database can be used, and whether it has the study.

    url: empty for the journal file in the sweep's folder, which needs no check. out: the folder of sweeps,
    which is made with the sweep. tracking_uri: the MLflow store, which must be another database.
    new: the database must not have a study of this name.

    Raises:
        SweepError: it cannot, or has one; without the password.
    """
    if not url:
        return
    check_address(url, STUDIES)
    if tracking_uri and same_database(url, tracking_uri):
        raise SweepError(
            "--storage and the tracking store are one database: {seen}",
            rule="Optuna and MLflow each keep the version of their schema in a table alembic_version",
            seen=shown(url),
            fix="name another one with --storage, or leave --storage out",
        )
    _check_folder(url, out)
    names = _study_names(url)
    if new and name in names:
        rule = "a new sweep needs a new study"
        fix = "choose another --name, or go on in the --out that it began in"
        raise SweepError(f"study {name} exists already in {{seen}}", rule=rule, seen=shown(url), fix=fix)
    check_writable(url, STUDIES)


def _check_folder(url: str, out: Path | None) -> None:
    """SweepError where the folder of an sqlite file is missing, and is not one that the sweep makes."""
    path = sqlite_path(url)
    folder = path.parent if path else None
    if folder is None or os.path.exists(folder):
        return
    if out is None or out.absolute() not in (folder, *folder.parents):
        raise SweepError(
            "the folder of --storage {seen} is not there",
            seen=str(path),
            fix=f"make it: mkdir -p {shlex.quote(str(folder))}; or correct --storage",
        )


def _study_names(url: str) -> frozenset[str]:
    if not can_read(url):
        return _names_by_optuna(url)
    with reading(url, STUDIES) as reader:
        made = check_schema(url, reader, OPTUNA, STUDIES)
        return frozenset(str(row[0]) for row in reader.rows("studies", "study_name")) if made else frozenset()


def _names_by_optuna(url: str) -> frozenset[str]:
    """The studies in a database that only Optuna can read; none where it has no tables yet."""
    try:
        return frozenset(optuna.study.get_all_study_names(_open(url, skip_table_creation=True)))
    except optuna.exceptions.StorageInternalError as error:
        if (
            type(error.__cause__).__name__ == "ProgrammingError"
        ):  # the drivers' common name for a missing table
            return frozenset()
        raise _no_answer(url, error) from error
    except Exception as error:  # SQLAlchemy's, the driver's
        raise _no_answer(url, error) from error


def _no_answer(url: str, error: Exception) -> SweepError:
    return SweepError(
        f"{STUDIES.name} does not answer",
        seen=f"{redact(url)} ({redact(first_line(error))})",
        fix="start it, or correct --storage",
    )


def open_database(url: str) -> RDBStorage:
    """Open the database; its tables are made by one process at a time, an sqlite file as a whole."""
    if sqlite_path(url) is not None:
        make_sqlite(url, lambda aside: _open(aside).engine.dispose())
        return _open(url)
    with alone_with(url):
        return _open(url)


def _open(url: str, *, skip_table_creation: bool = False) -> RDBStorage:
    timeout = {"connect_timeout": ANSWER_SEC} if url.startswith(("postgresql", "mysql")) else {}
    return optuna.storages.RDBStorage(
        url, engine_kwargs={"connect_args": timeout}, skip_table_creation=skip_table_creation
    )
