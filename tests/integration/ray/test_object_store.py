"""A real sweep in an S3 server, with its study and lock in PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import machines
import object_stores
import pytest

from pipeline.cli.submit import package_job
from pipeline.errors import GansweepError, SweepError
from pipeline.storage import lock
from pipeline.storage.object_store import ObjectStore
from pipeline.storage.readonly_copy import fetched_sweep
from pipeline.storage.uploader import StoreUploader
from pipeline.sweep import remote
from pipeline.sweep.request import Request

TYPED = ("--space", "smoke", "--data", "digits", "--name", "far", "--trials", "2", "--kimg", "5", "-q")
TYPED += ("--extractor", "pixels", "--fid-samples", "500", "--final-samples", "500")
TYPED += ("--second-extractor", "none")
TYPED += ("--out", object_stores.BUCKET)


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with object_stores.s3_server():
        yield


def gansweep(*arguments: str) -> None:
    """The command in a process of its own: Ray and pyarrow leave threads behind."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def lose_the_store(request: Request, store: ObjectStore) -> None:
    """A sweep whose store is unreachable when it ends."""
    with remote.uploaded_sweep(request) as uploader:
        assert isinstance(uploader, StoreUploader)
        uploader._sync.store = object_stores.FailingStore(store)  # type: ignore[assignment]
        request.paths.stop.touch()


@pytest.mark.ray
@pytest.mark.mlflow
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_lives_in_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real trials; then resumed from an empty working copy, and read."""
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "one"))
    for name in ("RAY_ADDRESS", "GANSWEEP_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    with machines.postgres(tmp_path / "pg") as database:
        monkeypatch.setenv("PGPASSWORD", database.password)
        storage, uri = database.url("study"), f"sqlite:///{tmp_path}/mlflow.db"
        request = package_job([*TYPED, "--storage", storage, "--no-register"], Path(__file__).parent)[1]
        gansweep("run", *TYPED, "--storage", storage, "--tracking-uri", uri, "--no-register")
        store = ObjectStore(request.url)
        keys = store.list_keys()
        expected = {"sweep.toml", "summary.json", "shipped.json", "report.html", "champion/files.json"}
        assert expected <= keys.keys()
        assert not any("/state-" in key for key in keys)
        assert json.loads(store.get("summary.json"))["state"] == "finished"

        monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "two"))
        with (
            lock.store_lock(request.url, storage),
            pytest.raises(SweepError, match=f"{request.url} is held by process {os.getpid()} on "),
            remote.uploaded_sweep(request),
        ):
            pass
        with remote.uploaded_sweep(request):
            events = request.paths.event_log.read_bytes()
            segments = dict(store.get_many(store.list_keys("spool.jsonl")))
            assert events == b"".join(segments[name] for name in sorted(segments))
            assert events.count(b'"event": "record"') == 2
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.sweep.remote._CLOSE_SEC", 0.1)
            with pytest.raises(GansweepError, match="has not got the last changes .*gansweep resume s3://"):
                lose_the_store(request, store)
        gansweep("resume", request.url, "--storage", storage, "--tracking-uri", uri)
    with fetched_sweep(request.url) as root:
        assert (root / "champion/generator.safetensors").is_file()
        assert not (root / "trials").exists()
    for data in dict(store.get_many(store.list_keys())).values():
        assert database.password.encode() not in data
        assert b"hush-hush" not in data
