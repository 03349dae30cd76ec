"""An MLflow store in a database: whether it is MLflow's, of the installed version, and ours to write."""

from __future__ import annotations

from pipeline.errors import RegistryError
from pipeline.storage.addresses import sqlite_path
from pipeline.storage.database import can_read, check_writable, reading
from pipeline.storage.database_kinds import Role, check_address, shown
from pipeline.storage.database_schema import Program, check_schema

MLFLOW = Program(
    name="MLflow",
    package="mlflow",
    scripts="store/db_migrations/versions",
    tables=frozenset({"experiments", "runs", "tags", "metrics", "params"}),
    first="experiments",
    upgrade="mlflow db upgrade",
    completes=("postgresql",),
)

IS_PROMPT = "mlflow.prompt.is_prompt"
"""MLflow's tag of a registered model that is a prompt."""


class StoreAwayError(RegistryError):
    """The tracking store does not answer now; a sweep under way goes on without it."""


STORE = Role("the tracking store", "--tracking-uri", "MLflow", RegistryError, StoreAwayError)


def check_database(uri: str, *, write: bool) -> None:
    """Check an MLflow store in a database, without writing.

    write: whether it must be writable, and may be still to be made.

    Raises:
        RegistryError: it cannot be used.
        StoreAwayError: it does not answer, or another program locks it.
    """
    check_address(uri, STORE)
    if can_read(uri):
        with reading(uri, STORE) as reader:
            made = check_schema(uri, reader, MLFLOW, STORE)
        if not made and not write:
            raise RegistryError(
                "the tracking store {seen} cannot be read",
                rule="there is none yet" if sqlite_path(uri) else "it has no tables yet",
                seen=shown(uri),
                fix="correct --tracking-uri or run a sweep first",
            )
    if write:
        check_writable(uri, STORE)


def is_prompt(uri: str, name: str) -> bool:
    """Whether `name` is a prompt in the registry of a store in a database; False where that is not known."""
    if not can_read(uri):
        return False
    with reading(uri, STORE) as reader:
        rows = reader.rows("registered_model_tags", "name", "key")
    return (name, IS_PROMPT) in map(tuple, rows)
