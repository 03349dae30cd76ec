"""The lock of a sweep: one process at a time, which the next one is told."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import machines
import pytest

from pipeline.config import SweepPaths
from pipeline.errors import SweepError
from pipeline.storage.lock import NoLocksError, check_locks, store_lock, sweep_lock


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


NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL]


def _refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(file: object, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", NO_LOCKS)
def test_a_file_system_without_locks_is_said_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _refuse(monkeypatch, number)
    said = r"has no file locks: .*\(flock: .*local disk, or mount this one with locks"
    with pytest.raises(NoLocksError, match=said):
        check_locks(tmp_path)
    with pytest.raises(NoLocksError, match=said), sweep_lock(SweepPaths(tmp_path / "a/b")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweep.toml").touch()
    (tmp_path / "lock").touch()
    _refuse(monkeypatch, errno.ENOSYS)
    with pytest.raises(NoLocksError), sweep_lock(SweepPaths(tmp_path)):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.toml", "lock"}


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_is_held_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _refuse(monkeypatch, number)
    check_locks(tmp_path)
    with pytest.raises(SweepError, match="held by another process"), sweep_lock(SweepPaths(tmp_path)):
        pass


def test_a_folder_with_locks_passes_and_is_left_as_it_is(tmp_path: Path) -> None:
    check_locks(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SweepError, match="the sweep's folder cannot be written: .*a .not a directory"),
        sweep_lock(SweepPaths(tmp_path / "file/a")),
    ):
        pass
