"""The variables by which MLflow would add what a sweep logs to another run, model or registry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_OF_ANOTHER_RUN = (
    *("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID", "MLFLOW_RUN_CONTEXT"),
    *("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_REGISTRY_URI"),
)
_OTHER_WAYS = (
    *("MLFLOW_ENABLE_ASYNC_LOGGING", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"),  # errors are only printed
    "MLFLOW_LOCK_MODEL_DEPENDENCIES",  # asks a package index
)


@contextlib.contextmanager
def own_mlflow_runs() -> Iterator[None]:
    """Leave these variables out for the block; where the store is, and who we are there, stays as it is."""
    before = {n: os.environ.pop(n) for n in (*_OF_ANOTHER_RUN, *_OTHER_WAYS) if n in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
