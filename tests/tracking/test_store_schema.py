"""A tracking store that cannot be used is told in one line before a sweep, and nothing is written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import RegistryError
from pipeline.storage.database_schema import revisions_of
from pipeline.storage.sqlite_file import LOCK_SEC
from pipeline.tracking.store_schema import MLFLOW, StoreAwayError, check_database, is_prompt

OLDER = "1bd49d398cd23"
"""A revision before the newest one."""


@pytest.fixture
def changed(empty_store: Callable[[Path], str], tmp_path: Path) -> Callable[[str], str]:
    """changed(sql): the address of a new store in which `sql` was run."""

    def change(sql: str) -> str:
        uri = empty_store(tmp_path)
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
            store.executescript(sql)
        return uri

    return change


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_the_newest_revision_is_that_of_mlflow(changed: Callable[[str], str], tmp_path: Path) -> None:
    revisions = revisions_of(MLFLOW)
    check_database(changed(""), write=True)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        assert revisions is not None
        assert store.execute("select version_num from alembic_version").fetchall() == [(revisions.head,)]
    assert OLDER in revisions.known


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            f"update alembic_version set version_num = '{OLDER}'",
            "is of an older MLflow .*; back it up, then: mlflow db upgrade sqlite:////.*mlflow.db$",
        ),
        (
            "update alembic_version set version_num = 'ffffffffffff'",
            "is of a newer MLflow.*install the MLflow that made it.*; `mlflow db upgrade` does not help",
        ),
        ("delete from alembic_version", "is damaged .it lacks the version of its schema.*backup"),
        ("drop table runs", "is damaged .it lacks runs"),
        (
            "delete from alembic_version; delete from experiments",
            "was never finished being made.*; delete it: rm /.*mlflow.db$",
        ),
        (
            f"update alembic_version set version_num = '{OLDER}'; delete from experiments",
            "was never finished being made.*rm /.*mlflow.db; or, if it is yours and only old, back it up",
        ),
    ],
)
def test_a_store_of_another_mlflow_is_refused(
    changed: Callable[[str], str], tmp_path: Path, sql: str, message: str, write: bool
) -> None:
    uri = changed(sql)
    before = bytes_below(tmp_path)
    with pytest.raises(RegistryError, match=message):
        check_database(uri, write=write)
    assert bytes_below(tmp_path) == before


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (["studies", "trials", "trial_params", "alembic_version"], "another program .it holds Optuna tables"),
        (["django_migrations"], "another program .it holds Django tables"),
        (["runs", "event_logs", "alembic_version"], "another program .it holds other tables"),
        (["alembic_version"], "was never finished being made"),
        (["experiments", "metrics"], "was never finished being made .it lacks params, runs, tags"),
    ],
)
def test_a_database_of_others_is_refused(tmp_path: Path, tables: list[str], message: str) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        for table in tables:
            database.execute(f"create table {table} (version_num)")
    with pytest.raises(RegistryError, match=message):
        check_database(f"sqlite:///{tmp_path}/other.db", write=True)


def test_a_missing_or_empty_file_will_be_made(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for name in ("empty.db", "deep/er/new.db"):
        check_database(f"sqlite:///{tmp_path}/{name}", write=True)
        with pytest.raises(RegistryError, match=r"cannot be read .there is none yet.; .* run a sweep first"):
            check_database(f"sqlite:///{tmp_path}/{name}", write=False)
    assert bytes_below(tmp_path) == {"empty.db": b""}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notes.db", "notes.db is no sqlite file"),
        ("torn.db", "torn.db cannot be read .*malformed"),
        ("pipe.db", "pipe.db is no sqlite file"),
        ("folder.db", "folder.db is a folder"),
        ("notes.db/mlflow.db", "cannot be read .not a folder"),
        ("dangling/mlflow.db", "cannot be read|there is none"),
    ],
)
def test_what_is_no_database_is_refused(
    tmp_path: Path, empty_store: Callable[[Path], str], name: str, message: str
) -> None:
    empty_store(tmp_path)
    (tmp_path / "notes.db").write_text("these are notes, not a database")
    (tmp_path / "torn.db").write_bytes((tmp_path / "mlflow.db").read_bytes()[:3000])
    (tmp_path / "folder.db").mkdir()
    os.mkfifo(tmp_path / "pipe.db")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "deep")
    with pytest.raises(RegistryError, match=message):
        check_database(f"sqlite:///{tmp_path / name}", write=False)


def test_a_file_or_folder_that_may_not_be_written(tmp_path: Path, empty_store: Callable[[Path], str]) -> None:
    if (
        os.geteuid() == 0
        and subprocess.run(["chattr", "+i", tmp_path], check=False, capture_output=True).returncode
    ):
        pytest.skip("root may write everywhere, and there are no immutable files here")
    subprocess.run(["chattr", "-i", tmp_path], check=False, capture_output=True)
    uri = empty_store(tmp_path / "store")
    for path, message in ((tmp_path / "store", "the folder .*store may not be written"),
                          (tmp_path / "store/mlflow.db", "not permitted|denied")):  # fmt: skip
        mode = path.stat().st_mode
        path.chmod(mode & ~0o222)
        subprocess.run(["chattr", "+i", path], check=False, capture_output=True)
        try:
            check_database(uri, write=False)
            with pytest.raises(RegistryError, match=f"cannot be written .*{message}"):
                check_database(uri, write=True)
        finally:
            subprocess.run(["chattr", "-i", path], check=False, capture_output=True)
            path.chmod(mode)


def test_a_store_that_is_locked_for_long_is_away(changed: Callable[[str], str], tmp_path: Path) -> None:
    uri = changed("")
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        check_database(uri, write=False)
        with pytest.raises(StoreAwayError, match=f"locked by another program .no lock within {LOCK_SEC:g} s"):
            check_database(uri, write=True)


def test_reading_leaves_no_file_of_a_write_ahead_log(changed: Callable[[str], str], tmp_path: Path) -> None:
    uri = changed("pragma journal_mode = wal")
    before = bytes_below(tmp_path)
    check_database(uri, write=True)
    assert bytes_below(tmp_path) == before


_TORN = """
import os, sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("pragma cache_size = 1")
store.execute("begin")
store.execute("create table big (a)")
for _ in range(50):
    store.execute("insert into big values (?)", ("x" * 4000,))
os.kill(os.getpid(), 9)
"""


def test_a_journal_that_a_killed_writer_left_is_not_rolled_back(
    changed: Callable[[str], str], tmp_path: Path
) -> None:
    uri = changed("")
    done = subprocess.run([sys.executable, "-c", _TORN, tmp_path / "mlflow.db"], check=False)
    assert done.returncode == -signal.SIGKILL
    before = bytes_below(tmp_path)
    assert "mlflow.db-journal" in before
    check_database(uri, write=True)
    assert bytes_below(tmp_path) == before


def test_prompts_are_told_from_models(changed: Callable[[str], str]) -> None:
    uri = changed(
        "insert into registered_models (name) values ('greeting'), ('gan');"
        "insert into registered_model_tags (name, key, value) values ('gan', 'a', 'b'),"
        " ('greeting', 'mlflow.prompt.is_prompt', 'true')"
    )
    assert is_prompt(uri, "greeting")
    assert not is_prompt(uri, "gan")
    assert not is_prompt(uri.replace("mlflow.db", "none.db"), "gan")


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_store_in_memory_is_refused(uri: str) -> None:
    with pytest.raises(RegistryError, match="--tracking-uri .* is a database in memory"):
        check_database(uri, write=True)
