"""Tracking stores by their URI: defaults, the check before a sweep starts, the creation of an experiment."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import RegistryError, first_line, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE_SEC = 10.0


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


def make_folder(uri: str) -> None:
    """Create the folder of an sqlite store; other stores need none."""
    path = _sqlite_path(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)


def default_uri(out: Path) -> str:
    """The tracking store of sweeps below `out` where none is named: an sqlite file, by absolute path."""
    return f"sqlite:///{(out / 'mlflow.db').resolve()}"


def default_artifacts(uri: str) -> str | None:
    """Where an experiment of an sqlite store keeps its files (not in ./mlruns); None for other stores."""
    path = _sqlite_path(uri)
    return None if path is None else (path.parent / "artifacts").as_uri()


def check_server(uri: str, *, write: bool = True) -> None:
    """Check that the tracking store can be used, within `PROBE_SEC`.

    write: whether it must be writable; False = it must exist and be readable.

    Raises:
        RegistryError: it cannot be used, or does not answer.
    """
    path = _sqlite_path(uri)
    if path is not None:
        _check_sqlite(path, write)
    elif uri.startswith("file:") or ("://" not in uri and not uri.startswith("databricks")):
        raise RegistryError(
            "{seen} is a plain folder",
            rule="MLflow 3 keeps no tracking store in one",
            seen=redact(uri),
            fix="use sqlite:///PATH/mlflow.db or a server's http:// address",
        )
    else:
        error = _probe(uri)
        if error:
            raise RegistryError(
                "the tracking server does not answer",
                seen=f"{redact(uri)} ({redact(error)})",
                fix="start it, correct --tracking-uri or leave it out for a local store",
            )


def _sqlite_path(uri: str) -> Path | None:
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return Path(match[1]).resolve() if match else None


def _check_sqlite(path: Path, write: bool) -> None:
    access = os.R_OK | os.W_OK if write else os.R_OK
    try:
        # A missing folder is created together with the store, not by this check.
        existing = next(folder for folder in path.parents if folder.exists())
        may_create = write and existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
        usable = os.access(path, access) if path.exists() else may_create
        if usable and path.exists():
            with open(path, "rb") as file:
                usable = path.is_file() and file.read(15) in (b"", b"SQLite format 3")
    except OSError:
        usable = False
    if not usable:
        verb, need = ("written", "writable") if write else ("read", "readable")
        raise RegistryError(
            f"the tracking store {{seen}} cannot be {verb}",
            rule=f"a {need} sqlite file is needed",
            seen=str(path),
            fix="correct --tracking-uri or run a sweep first",
        )


def _probe(uri: str) -> str:
    """The first line of the error of one request; empty where the store answers."""
    answer: list[str] = []

    def ask() -> None:
        try:
            from mlflow import MlflowClient

            MlflowClient(uri, uri).search_experiments(max_results=1)
            answer.append("")
        except Exception as error:  # of any type: shown to the user in one line
            answer.append(first_line(error))

    # In a thread: a host that drops packets blocks the call for minutes.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SEC)
    return answer[0] if answer else f"no answer in {PROBE_SEC:g} s"
