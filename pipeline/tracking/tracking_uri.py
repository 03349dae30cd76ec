"""Tracking stores by their URI: defaults, the check before a sweep, the making of a store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import RegistryError, redact
from pipeline.storage.addresses import sqlite_address, sqlite_path
from pipeline.storage.making import alone_with, make_sqlite
from pipeline.tracking.moved_store import follow_artifacts
from pipeline.tracking.server import check_http
from pipeline.tracking.store_schema import check_database

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SERVER = ("http://", "https://")
_NO_DATABASE = (*_SERVER, "databricks")


def ensure_experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    """The id of the experiment `name`, created or restored from deletion where need be."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifact_location))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another sweep may have created it
            if found is None:
                raise error
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def default_uri(out: Path) -> str:
    """The tracking store of sweeps below `out` where none is named: an sqlite file, by absolute path."""
    return sqlite_address((out / "mlflow.db").resolve())


def default_artifacts(uri: str) -> str | None:
    """Where an experiment of an sqlite store keeps its files (not in ./mlruns); None for other stores."""
    path = sqlite_path(uri)
    return None if path is None else (path.parent / "artifacts").as_uri()


def check_server(uri: str, *, write: bool = True) -> None:
    """Check, without writing, that the tracking store can be used.

    write: whether it must be writable; False = it must exist and be readable.

    Raises:
        RegistryError: it cannot be used.
        StoreAwayError: it does not answer now.
    """
    if uri.startswith(_SERVER):
        check_http(uri, write=write)
    elif uri.startswith("file:") or ("://" not in uri and not uri.startswith("databricks")):
        raise RegistryError(
            "{seen} is a plain folder",
            rule="MLflow 3 keeps no tracking store in one",
            seen=redact(uri),
            fix="use sqlite:///PATH/mlflow.db or a server's http:// address",
        )
    elif not uri.startswith("databricks"):
        if write:
            _check_artifacts(sqlite_path(uri))
        check_database(uri, write=write)


def _check_artifacts(path: Path | None) -> None:
    """RegistryError where MLflow could not load a model that lies beside the sqlite file at `path`."""
    if path and re.search("%[0-9A-Fa-f]{2}", str(path.parent)):
        raise RegistryError(
            "MLflow cannot load models from {seen}",
            rule="it reads % and two hexadecimal digits in a path as one character",
            seen=str(path.parent),
            fix="rename the folder, or choose another --out or --tracking-uri",
        )


def open_store(uri: str) -> MlflowClient:
    """A client of the store, which is made where there is none: by one process at a time, and as a whole."""
    from mlflow import MlflowClient

    if sqlite_path(uri) is not None:
        make_sqlite(uri, lambda aside: MlflowClient(aside, aside).search_experiments(max_results=1))
        follow_artifacts(uri)
    elif not uri.startswith(_NO_DATABASE):
        with alone_with(uri):
            return MlflowClient(uri, uri)
    return MlflowClient(uri, uri)
