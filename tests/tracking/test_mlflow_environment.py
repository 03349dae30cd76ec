"""The settings of MLflow that the package makes before MLflow is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from pipeline.tracking.mlflow_environment import own_mlflow_runs

CODE = """
import json, os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "mlflow":
            print(json.dumps({key: value for key, value in os.environ.items() if key.startswith("MLFLOW_")}))
            raise SystemExit
sys.meta_path.insert(0, Watch())
import importlib
importlib.import_module(sys.argv[1])
"""


@pytest.mark.parametrize("module", ["pipeline.tracking.registry.load", "pipeline.serving.models"])
def test_mlflow_is_imported_with_few_retries_and_without_telemetry(module: str) -> None:
    """The default of seven retries would block a call to a dead server for minutes."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "7"
    done = subprocess.run(
        [sys.executable, "-c", CODE, module], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    settings = json.loads(done.stdout)
    assert settings["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert settings["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert settings["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"  # a value of the user's is kept


def test_a_sweep_joins_no_run_that_the_shell_names(monkeypatch: pytest.MonkeyPatch) -> None:
    named = ("MLFLOW_RUN_ID", "MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_REGISTRY_URI", "MLFLOW_ENABLE_ASYNC_LOGGING")
    for name in (*named, "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, "theirs")
    with own_mlflow_runs():
        assert [name for name in named if name in os.environ] == []
        assert os.environ["MLFLOW_TRACKING_TOKEN"] == "theirs"
    assert {os.environ[name] for name in named} == {"theirs"}
