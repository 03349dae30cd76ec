"""A database is made once, as a whole, however many processes ask for it at the same moment."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import machines
import pytest

from pipeline.storage.addresses import sqlite_path
from pipeline.storage.making import alone_with, make_sqlite


def make_table(url: str) -> None:
    path = sqlite_path(url)
    assert path is not None
    with closing(sqlite3.connect(path)) as made:
        made.execute("create table made (by)")
        time.sleep(0.05)
        made.execute("insert into made values (1)")
        made.commit()


def rows(path: Path) -> list[tuple[int]]:
    with closing(sqlite3.connect(path)) as made:
        return made.execute("select * from made").fetchall()


@pytest.mark.parametrize("state", ["missing", "no folder", "empty", "link"])
def test_a_file_is_made_where_there_is_none(tmp_path: Path, state: str) -> None:
    path = tmp_path / ("deep/er" if state == "no folder" else "") / "a b?.db"
    if state == "empty":
        path.touch()
    if state == "link":
        path.symlink_to(tmp_path / "target.db")
    make_sqlite(f"sqlite:///{str(path).replace('?', '%3F')}", make_table)
    assert rows(path) == [(1,)]
    assert {p.name for p in path.parent.iterdir()} <= {path.name, "target.db"}


def test_a_database_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    make_sqlite(f"sqlite:///{path}", make_table)
    make_sqlite(f"sqlite:///{path}", lambda url: pytest.fail("made again"))


def test_a_making_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken(url: str) -> None:
        make_table(url)
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        make_sqlite(f"sqlite:///{tmp_path}/a.db", broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("locks", [True, False])
def test_threads_make_one(tmp_path: Path, locks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    if not locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    made: list[str] = []

    def make(url: str) -> None:
        made.append(url)
        make_table(url)

    threads = [
        threading.Thread(target=make_sqlite, args=(f"sqlite:///{tmp_path}/a.db", make)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows(tmp_path / "a.db") == [(1,)]
    assert (len(made) == 1) or not locks
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


def test_a_maker_that_is_killed_leaves_no_file(tmp_path: Path) -> None:
    code = (
        "import sys, time, sqlite3\nfrom pipeline.storage.making import make_sqlite\n"
        "def make(url):\n sqlite3.connect(url.removeprefix('sqlite:///')).execute('create table a (b)')\n"
        " print('making', flush=True); time.sleep(60)\n"
        "make_sqlite(sys.argv[1], make)"
    )
    url = f"sqlite:///{tmp_path}/runs/a.db"
    with subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
    assert list((tmp_path / "runs").iterdir()) == []
    make_sqlite(url, make_table)
    assert rows(tmp_path / "runs/a.db") == [(1,)]


def held_together(url: str) -> int:
    """The most threads that were in the block of `alone_with(url)` at once."""
    inside, most = 0, 0
    count = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with alone_with(url):
            with count:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with count:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return most


def test_one_at_a_time_works_on_a_file_or_a_server(tmp_path: Path) -> None:
    assert held_together(f"sqlite:///{tmp_path}/a.db") == 1
    assert held_together("http://127.0.0.1:5000") == 1


@pytest.mark.slow
def test_one_at_a_time_works_on_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with machines.postgres(tmp_path / "pg") as server:
        monkeypatch.setenv("PGPASSWORD", server.password)
        assert held_together(server.url("study")) == 1


def test_a_database_that_does_not_answer_is_for_others_to_tell() -> None:
    with alone_with(f"postgresql://u@127.0.0.1:{machines.free_port()}/x"):
        pass
