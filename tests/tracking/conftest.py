"""An empty MLflow store in an sqlite file, created once: MLflow takes seconds for that."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.tracking.tracking_uri import default_uri


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """empty_store(folder): the URI of a new empty store in `folder`."""
    from mlflow import MlflowClient

    template = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(template)
        MlflowClient(default_uri(template), default_uri(template)).search_experiments()

    def make(folder: Path) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(template / "mlflow.db", folder)
        return default_uri(folder)

    return make
