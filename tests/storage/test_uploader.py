"""The uploading thread: an outage of the store delays uploads and does nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import machines
import pytest
from object_stores import FailingStore, write_files

from pipeline.storage.object_store import ObjectStore
from pipeline.storage.sync import FolderSync, is_scratch_file
from pipeline.storage.uploader import StoreUploader


def test_an_outage_costs_only_delay(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    monkeypatch.setattr("pipeline.storage.uploader.PERIOD_SEC", 0.05)
    failing = FailingStore(store)
    write_files(tmp_path, sweep_DOT_toml="a", spool_DOT_jsonl="1\n")
    sync = FolderSync(failing, tmp_path, lambda key: not is_scratch_file(key))  # type: ignore[arg-type]
    uploader = StoreUploader(sync)
    machines.wait_for(lambda: bool(uploader.error), 10, "the outage is noticed")
    time.sleep(0.3)
    failing.left = 1000
    machines.wait_for(lambda: not uploader.error, 10, "it has ended")
    store.put("trials/3/state-000000001-0123456789abcdef.pt", b"s")
    uploader.delete_checkpoints(tmp_path / "trials/3")
    write_files(tmp_path, spool_DOT_jsonl="1\n2\n")
    assert uploader.close(10)
    outage, end = [record for record in caplog.records if record.name == "pipeline.storage.uploader"]
    assert outage.levelname == "WARNING"
    assert outage.getMessage().startswith(f"{store.url} is unreachable")
    assert (end.levelname, end.getMessage()) == (
        "INFO",
        f"{store.url} answers again, and everything is uploaded",
    )
    assert {key.partition("/")[0] for key in store.list_keys()} == {"sweep.toml", "spool.jsonl"}
    assert uploader.uploaded_bytes() == len("1\n2\n")
    failing.left = 0
    assert not StoreUploader(FolderSync(failing, tmp_path)).close(0.2)  # type: ignore[arg-type]


def test_checkpoints_are_deleted_after_an_outage(store: ObjectStore, tmp_path: Path) -> None:
    failing = FailingStore(store)
    uploader = StoreUploader(FolderSync(failing, tmp_path))  # type: ignore[arg-type]
    store.put("trials/3/state-000000001-0123456789abcdef.pt", b"s")
    uploader.delete_checkpoints(tmp_path / "trials/3")
    assert not uploader.upload()
    failing.left = 1000
    assert uploader.close(10)
    assert not store.list_keys()
