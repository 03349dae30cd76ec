"""The lock of a sweep: one process at a time, which the next one is told."""

from __future__ import annotations

import os
from pathlib import Path

import machines
import pytest

from pipeline.config import SweepPaths
from pipeline.errors import SweepError
from pipeline.storage.lock import store_lock, sweep_lock


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path)
    with (
        sweep_lock(paths),
        pytest.raises(SweepError, match=f"is held by process {os.getpid()} on "),
        sweep_lock(paths),
    ):
        pass
    with sweep_lock(paths):
        pass


def test_a_database_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hush-hush")
    storage = f"postgresql+psycopg://someone:hush-hush@127.0.0.1:{machines.free_port()}/study"
    with (
        pytest.raises(SweepError, match="database does not answer: .*127.0.0.1.*--storage") as refusal,
        store_lock("s3://bucket/a", storage),
    ):
        pass
    assert "hush-hush" not in str(refusal.value)
