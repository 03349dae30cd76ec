"""Whether a tracking store can be reached is found without opening or creating it."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from http_servers import http_server, mlflow_api

from pipeline.cli.doctor.reachability import check_study, check_tracking
from pipeline.errors import RegistryError
from pipeline.storage.database_schema import revisions_of
from pipeline.tracking.store_schema import MLFLOW
from pipeline.tracking.tracking_uri import check_server


def mlflow_tables(folder: Path) -> str:
    """The address of a file with the tables that MLflow makes first, of its newest version."""
    revisions = revisions_of(MLFLOW)
    assert revisions is not None
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        for table in MLFLOW.tables:
            store.execute(f"create table {table} (name)")
        store.execute("insert into experiments values ('Default')")
        store.execute("create table alembic_version (version_num)")
        store.execute("insert into alembic_version values (?)", (revisions.head,))
        store.commit()
    return f"sqlite:///{folder}/mlflow.db"


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_sqlite_store_is_read_without_being_made(tmp_path: Path) -> None:
    found = check_tracking(f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert (found.level, list(tmp_path.iterdir())) == ("ok", [])
    assert "will be made by the first sweep" in found.text
    uri = mlflow_tables(tmp_path)
    assert check_tracking(uri).text.endswith("mlflow.db: 0 runs")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
        store.execute("update alembic_version set version_num = 'ffffffffffff'")
        store.commit()
    with pytest.raises(RegistryError) as refused:
        check_server(uri)
    found = check_tracking(uri)
    assert (found.level, found.text) == ("bad", str(refused.value))


def test_a_server_is_asked_what_a_sweep_asks() -> None:
    with http_server(mlflow_api) as uri:
        assert check_tracking(uri).level == "ok"
    with http_server(lambda *_: (401, "")) as uri:
        found = check_tracking(uri)
        assert (found.level, "does not let this user in" in found.text) == ("bad", True)


def test_the_study_s_database_is_found_as_a_sweep_finds_it(tmp_path: Path) -> None:
    uri = mlflow_tables(tmp_path)
    assert check_study("", tmp_path, uri) == []
    (fine,) = check_study(f"sqlite:///{tmp_path}/study.db", tmp_path, uri)
    (both,) = check_study(uri, tmp_path, uri)
    assert (fine.level, both.level) == ("ok", "bad")
    assert "are one database" in both.text
    assert "it holds MLflow tables" in check_study(uri, tmp_path, "")[0].text


def test_a_silent_server_is_bad_and_no_password_is_shown() -> None:
    port = closed_port()
    for uri in (f"http://me:secret@127.0.0.1:{port}", f"postgresql+psycopg://me:secret@127.0.0.1:{port}/x"):
        found = check_tracking(uri)
        assert found.level == "bad"
        assert "does not answer" in found.text
        assert "secret" not in found.text


def test_a_sweep_in_an_object_store_needs_an_address() -> None:
    assert check_tracking("").level == "bad"


@pytest.mark.parametrize("uri", ["file:///data/mlruns", "/data/mlruns"])
def test_a_file_store_is_refused_with_what_to_use(uri: str) -> None:
    found = check_tracking(uri)
    assert found.level == "bad"
    assert "use sqlite:///PATH/mlflow.db" in found.text
