"""The end of a sweep: a kill at any point of it is completed by the next resume or the same command.

`python benchmarks/chaos.py --row end` kills at every point, with files and with servers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow, pytest.mark.timeout(300)]

RUN = ["run", "--space", "smoke", "--data", "digits", "--name", "s", "--trials", "2", "--kimg", "2"]
RUN += ["--concurrency", "1", "--extractor", "pixels", "--fid-samples", "200", "--final-samples", "200"]
RUN += ["--second-extractor", "none"]


def gansweep(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gansweep", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=200, env={**os.environ, **environment}
    )


def test_kills_at_the_end_are_completed(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run, root = [*RUN, "--out", str(tmp_path)], tmp_path / "s"
    for point, command in (("logged", run), ("champion", ["resume", str(root)]), ("ended", run)):
        killed = gansweep(*command, GANSWEEP_KILL_AT=point)
        assert killed.returncode == -9, killed.stderr
        assert json.loads((root / "summary.json").read_text())["state"] == "running"
    done = gansweep("resume", str(root))
    assert done.returncode == 0, done.stderr
    summary = json.loads((root / "summary.json").read_text())
    assert (summary["state"], summary["registered"]["alias"]) == ("finished", "champion")
    assert (root / "report.html").is_file()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'gansweep/s'")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert len(client.search_model_versions("name = 's'")) == 1
    assert len(client.search_logged_models([experiment.experiment_id])) == 1
    aliases = client.get_registered_model("s").aliases
    assert {alias: int(number) for alias, number in aliases.items()} == {"champion": 1}
