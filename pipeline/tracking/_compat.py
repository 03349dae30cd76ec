"""What the tracking of sweeps and models uses of MLflow and torch that is not part of their public API.

tests/tracking/test_compat.py says which of it an installed version lacks.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram

MLFLOW_STORE_LOGGER = "mlflow.store.db.utils"


def drop_example_inputs(program: ExportedProgram) -> None:
    """Remove the inputs that a program was exported with: they would be the only pickle in its archive."""
    program._example_inputs = None  # torch 2.11 to 2.14


def quiet_store() -> None:
    """MLflow prints tracebacks of database errors that it raises too (sqlite on a full disk): print none."""
    logging.getLogger(MLFLOW_STORE_LOGGER).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def default_store(uri: str) -> Iterator[None]:
    """Make `uri` MLflow's default store within the block.

    An sqlite registry looks up a logged model there, whatever store its client was made for.
    """
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")  # where MLflow copies the setting to
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type, unused-ignore]


def ask_server(uri: str, method: str, path: str, values: Mapping[str, object]) -> tuple[int, str]:
    """Status and body of a request to an MLflow server, with the credentials that MLflow would send."""
    from mlflow.utils import credentials, rest_utils

    request: Callable[..., Any] = rest_utils.http_request
    sender: Callable[[str], Any] = credentials.get_default_host_creds
    sent = {"params": dict(values)} if method == "GET" else {"json": dict(values)}
    answer = request(sender(uri), path, method, raise_on_status=False, **sent)
    return int(answer.status_code), str(answer.text)


def forget_artifact_folders() -> None:
    """MLflow remembers in a process where a run's artifacts lie, of a store that was moved meanwhile too."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()  # mlflow 3.17
