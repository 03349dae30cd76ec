"""Stores that six processes ask for at the same moment: each is right, and the databases are sound."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  # imported once, before the processes are forked
import optuna
import pytest

from pipeline.search.study_database import open_database
from pipeline.tracking.tracking_uri import default_artifacts, ensure_experiment, open_store

pytestmark = [pytest.mark.mlflow, pytest.mark.slow]

PROCESSES, ROUNDS = 6, 2


def add_run(uri: str, number: int) -> None:
    client = open_store(uri)
    client.create_run(ensure_experiment(client, "gansweep/x", default_artifacts(uri)))


def add_study(url: str, number: int) -> None:
    optuna.create_study(study_name=f"s{number}", storage=open_database(url)).ask()


def _work(
    add: Callable[[str, int], None], url: str, number: int, start: multiprocessing.synchronize.Barrier
) -> None:
    start.wait()
    add(url, number)


@pytest.mark.parametrize(("add", "table"), [(add_run, "runs"), (add_study, "studies")])
def test_six_processes_make_one_store(tmp_path: Path, add: Callable[[str, int], None], table: str) -> None:
    fork = multiprocessing.get_context("fork")
    for number in range(ROUNDS):
        path = tmp_path / f"round{number}" / "store.db"
        start = fork.Barrier(PROCESSES)
        workers = [
            fork.Process(target=_work, args=(add, f"sqlite:///{path}", one, start))
            for one in range(PROCESSES)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0] * PROCESSES
        with closing(sqlite3.connect(path)) as store:
            assert store.execute("pragma integrity_check").fetchall() == [("ok",)]
            assert store.execute(f"select count(*) from {table}").fetchone() == (PROCESSES,)
            assert len(store.execute("select version_num from alembic_version").fetchall()) == 1
        assert [one.name for one in path.parent.iterdir()] == ["store.db"]
