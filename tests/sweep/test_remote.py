"""A sweep in an object store, without running trials: what it needs, and what a node has to reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import object_stores
import pytest

from pipeline.cli.submit import package_job
from pipeline.cluster import connection
from pipeline.errors import ConfigError
from pipeline.storage.url import scratch_dir
from pipeline.sweep.request import Request
from pipeline.sweep.run import run_sweep

TYPED = ("--space", "smoke", "--data", "digits", "--name", "far", "--out", object_stores.BUCKET, "-q")


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with object_stores.s3_server():
        yield


def request_of(*more: str) -> Request:
    return package_job([*TYPED, *more], Path(__file__).parent)[1]


def test_study_and_runs_must_be_on_servers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GANSWEEP_STORAGE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="PostgreSQL.*no --storage"):
        run_sweep(request_of())
    with pytest.raises(ConfigError, match="no --tracking-uri .*on a tracking server"):
        run_sweep(request_of("--storage", "postgresql://127.0.0.1/study"))


def test_submit_sends_the_address_as_it_was_typed() -> None:
    package, request = package_job([*TYPED, "--storage", "postgresql://db/study"], Path(__file__).parent)
    assert f"--out {object_stores.BUCKET}" in package.command
    assert request.url == f"{object_stores.BUCKET}/far"
    assert request.paths.root == scratch_dir(request.url)


def test_a_node_reports_a_store_that_it_does_not_reach() -> None:
    reached = connection._answer(f"{object_stores.BUCKET}/nodes")
    assert "store_error" not in reached
    missed = connection._answer("s3://none/nodes")
    assert "NO_SUCH_BUCKET" in str(missed["store_error"])
