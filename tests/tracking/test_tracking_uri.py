"""Tracking stores by their URI: defaults, and the check before a sweep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import RegistryError
from pipeline.tracking.tracking_uri import check_server, default_artifacts, default_uri, ensure_experiment


def test_the_default_store_is_an_absolute_sqlite_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = default_uri(Path("runs"))
    assert uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert default_artifacts(uri) == f"file://{tmp_path}/runs/artifacts"
    assert default_artifacts("http://host:5000") is None


def test_a_store_that_does_not_exist_can_be_written_but_not_read(tmp_path: Path) -> None:
    uri = default_uri(tmp_path / "runs")
    check_server(uri)
    assert not (tmp_path / "runs").exists()  # a check creates nothing
    with pytest.raises(RegistryError, match="cannot be read"):
        check_server(uri, write=False)


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns", "/tmp/mlruns"])
def test_a_plain_folder_is_refused(uri: str) -> None:
    with pytest.raises(RegistryError, match="mlruns is a plain folder.*sqlite:///"):
        check_server(uri)


@pytest.mark.mlflow
def test_an_experiment_is_created_once_and_restored_after_its_deletion(
    tmp_path: Path, empty_store: Callable[[Path], str]
) -> None:
    from mlflow import MlflowClient

    uri = empty_store(tmp_path)
    client = MlflowClient(uri, uri)
    first = ensure_experiment(client, "gansweep", default_artifacts(uri))
    client.delete_experiment(first)
    assert ensure_experiment(client, "gansweep", default_artifacts(uri)) == first
    assert client.get_experiment(first).lifecycle_stage == "active"
