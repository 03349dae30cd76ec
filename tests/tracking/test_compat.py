"""The private API of MLflow and torch that tracking uses: it must be in the versions that are installed."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import mlflow
import torch

from pipeline.tracking import _compat


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_torch_keeps_the_inputs_of_an_export_where_they_are_dropped(tmp_path: Path) -> None:
    program = torch.export.export(Doubled(), (torch.ones(2),))
    assert getattr(program, "_example_inputs", None) is not None, (
        f"torch {torch.__version__} has no ExportedProgram._example_inputs: adapt drop_example_inputs in "
        "pipeline/tracking/_compat.py"
    )
    _compat.drop_example_inputs(program)
    torch.export.save(program, tmp_path / "program.pt2")
    with zipfile.ZipFile(tmp_path / "program.pt2") as archive:
        inputs = [info for info in archive.infolist() if "sample_inputs" in info.filename]
    assert not any(info.file_size for info in inputs), f"torch {torch.__version__} still writes a pickle"


def test_mlflow_logs_errors_of_its_database_where_they_are_silenced() -> None:
    from mlflow.store.db import utils

    logger = getattr(utils, "_logger", None)
    assert isinstance(logger, logging.Logger), f"mlflow {mlflow.__version__} has no logger in store.db.utils"
    assert logger.name == _compat.MLFLOW_STORE_LOGGER


def test_mlflow_has_a_default_store_that_can_be_set_and_set_back(tmp_path: Path) -> None:
    before = mlflow.get_tracking_uri()
    with _compat.default_store(f"sqlite:///{tmp_path}/mlflow.db"):
        assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert mlflow.get_tracking_uri() == before, (
        f"mlflow {mlflow.__version__} keeps the default store elsewhere than in MLFLOW_TRACKING_URI: adapt "
        "default_store in pipeline/tracking/_compat.py"
    )


def test_mlflow_has_the_request_that_its_servers_are_asked_by() -> None:
    from mlflow.utils import credentials, rest_utils

    for module, name in ((rest_utils, "http_request"), (credentials, "get_default_host_creds")):
        assert hasattr(module, name), (
            f"mlflow {mlflow.__version__} lacks {name}: adapt ask_server in _compat.py"
        )


def test_mlflow_remembers_where_artifacts_lie_where_it_is_made_to_forget() -> None:
    from mlflow.tracking._tracking_service import utils

    assert hasattr(getattr(utils, "_artifact_repos_cache", None), "clear"), (
        f"mlflow {mlflow.__version__} has no _artifact_repos_cache: adapt forget_artifact_folders"
    )
