"""Ray's authentication and a cluster's nodes."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import machines
import pytest

from pipeline.cli.doctor.cluster import check_auth, check_cluster


@pytest.mark.parametrize(
    ("mode", "token", "level"), [("disabled", "", "bad"), ("token", "", "warn"), ("token", "x", "ok")]
)
def test_auth_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str, token: str, level: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert check_auth().level == level


@pytest.mark.parametrize("address", [None, "", "local"])
def test_without_a_cluster_nothing_is_checked(address: str | None) -> None:
    assert check_cluster(address) == []


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:PORT"])
def test_a_cluster_that_does_not_answer_is_bad(address: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    (found,) = check_cluster(address.replace("PORT", str(port)))
    assert found.level == "bad"
    assert "no Ray cluster answers" in found.text


_CONNECTED = """
import os, ray
from pipeline.cli.doctor.cluster import check_cluster

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
(found,) = check_cluster("auto")
print(found.level, found.text, ray.is_initialized(), flush=True)
ray.shutdown()
os._exit(0)  # a thread of Ray may crash a process that ends slowly
"""


@pytest.mark.ray
def test_a_clusters_nodes_are_listed() -> None:
    """In a process that is connected already, that cluster is listed and stays connected."""
    done = subprocess.run([sys.executable, "-c", _CONNECTED], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    line = machines.script_lines(done.stdout)[-1]
    assert line.startswith("ok ")
    assert "1 CPU, 0 GPU" in line
    assert line.endswith(" True")
