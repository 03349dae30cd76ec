"""What Ray reads of the shell: only what a sweep can stand, and the shell's own afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.cluster.ray_environment import ray_environment

FOREIGN = {
    "RAY_ADDRESS": "10.255.255.1:6379",
    "RAY_NAMESPACE": "theirs",
    "RAY_RUNTIME_ENV_HOOK": "no.such.hook",
    "RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": {"working_dir": "gcs://gone.zip"}}',
    "RAY_OVERRIDE_RESOURCES": '{"CPU": 64}',
}
TUNE = {
    "TUNE_RESULT_DIR": "/nowhere",
    "TUNE_RESULT_BUFFER_LENGTH": "100",
    "RAY_AIR_LOCAL_CACHE_DIR": "/nowhere",
}


@pytest.fixture(autouse=True)
def _shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {**FOREIGN, **TUNE, "TUNE_DISABLE_SIGINT_HANDLER": "0", "RAY_DEDUP_LOGS": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_ray_of_its_own_is_told_of_no_other_one() -> None:
    before = dict(os.environ)
    with ray_environment(local=True):
        assert not (FOREIGN | TUNE).keys() & os.environ.keys()
        assert os.environ["TUNE_DISABLE_SIGINT_HANDLER"] == "1"
        assert os.environ["RAY_DEDUP_LOGS"] == "0"
        assert "RAY_AUTH_TOKEN" not in os.environ
    assert dict(os.environ) == before


def test_on_a_cluster_only_what_changes_trials_is_left_out() -> None:
    with ray_environment(local=False):
        assert FOREIGN.keys() <= os.environ.keys()
        assert not TUNE.keys() & os.environ.keys()


def test_a_home_that_cannot_keep_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    tokens = []
    for _ in range(2):
        with ray_environment(local=True):
            tokens.append(os.environ["RAY_AUTH_TOKEN"])
    assert tokens[0] == tokens[1]
    assert len(tokens[0]) == 64
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_token_that_was_given_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "gone"))
    with ray_environment(local=True):
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    with ray_environment(local=True):
        assert os.environ["RAY_AUTH_TOKEN"] == "given"
