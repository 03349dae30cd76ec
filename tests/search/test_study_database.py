"""The database of `--storage` is looked into before a sweep, and not written; what cannot be is one line."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import machines
import optuna
import psycopg
import pytest

from pipeline.errors import SweepError
from pipeline.search.study_database import OPTUNA, check_storage, open_database
from pipeline.storage.database_schema import revisions_of


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Optuna database with the study `mine`."""
    path = tmp_path_factory.mktemp("optuna") / "study.db"
    optuna.create_study(study_name="mine", storage=open_database(f"sqlite:///{path}"))
    return path


@pytest.fixture
def changed(template: Path, tmp_path: Path) -> Callable[[str], str]:
    """changed(sql): the address of a copy in which `sql` was run."""

    def change(sql: str) -> str:
        path = Path(shutil.copy(template, tmp_path / "study.db"))
        with closing(sqlite3.connect(path)) as database:
            database.executescript(sql)
        return f"sqlite:///{path}"

    return change


def test_a_journal_file_needs_no_check() -> None:
    check_storage("", "x", new=True)


def test_the_newest_revision_is_that_of_optuna(template: Path) -> None:
    revisions = revisions_of(OPTUNA)
    with closing(sqlite3.connect(template)) as database:
        assert revisions is not None
        assert database.execute("select version_num from alembic_version").fetchall() == [(revisions.head,)]
        tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
    assert tables == OPTUNA.tables | {"alembic_version"}


def test_a_study_of_the_name_is_refused_for_a_new_sweep_only(changed: Callable[[str], str]) -> None:
    url = changed("")
    check_storage(url, "mine", new=False)
    check_storage(url, "other", new=True)
    with pytest.raises(SweepError, match="study mine exists already in .*study.db"):
        check_storage(url, "mine", new=True)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        (
            "update alembic_version set version_num = 'v2.6.0.a'",
            "is of an older Optuna .*; back it up, then: optuna storage upgrade --storage sqlite:///.*study.db",
        ),
        (
            "update alembic_version set version_num = 'v9.0.0.a'",
            "is of a newer Optuna.*install the Optuna that made it.*upgrade --storage` does not help",
        ),
        ("delete from alembic_version", "is damaged .it lacks the version of its schema"),
        ("drop table trial_values", "is damaged .it lacks trial_values"),
    ],
)
def test_a_database_of_another_optuna_is_refused(
    changed: Callable[[str], str], sql: str, message: str
) -> None:
    with pytest.raises(SweepError, match=message):
        check_storage(changed(sql), "x", new=True)


def test_tables_that_optuna_completes_are_fine(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "half.db")) as database:
        database.execute("create table studies (study_id integer primary key, study_name varchar(512))")
    check_storage(f"sqlite:///{tmp_path}/half.db", "x", new=True)


@pytest.mark.parametrize(
    ("tables", "owner"),
    [
        (["experiments", "runs", "metrics", "alembic_version"], "MLflow"),
        (["django_migrations", "auth_user"], "Django"),
        (["notes", "studies"], "other"),
    ],
)
def test_another_programs_database_is_refused(tmp_path: Path, tables: list[str], owner: str) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        for table in tables:
            database.execute(f"create table {table} (version_num)")
    with pytest.raises(
        SweepError, match=f"another program .it holds {owner} tables: .*name another with --st"
    ):
        check_storage(f"sqlite:///{tmp_path}/other.db", "x", new=True)


def test_a_file_is_not_made_by_the_check(tmp_path: Path) -> None:
    check_storage(f"sqlite:///{tmp_path}/dry.db", "x", new=True)
    check_storage(f"sqlite:///{tmp_path}/runs/a/dry.db", "x", new=True, out=tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SweepError, match="the folder of --storage .* is not there; make it: mkdir -p"):
        check_storage(f"sqlite:///{tmp_path}/typo/dry.db", "x", new=True, out=tmp_path / "runs")


@pytest.mark.parametrize("other", ["study.db", "./study.db", "link.db", "hard.db"])
def test_one_database_for_both_is_refused(tmp_path: Path, template: Path, other: str) -> None:
    shutil.copy(template, tmp_path / "study.db")
    (tmp_path / "link.db").symlink_to(tmp_path / "study.db")
    (tmp_path / "hard.db").hardlink_to(tmp_path / "study.db")
    with pytest.raises(SweepError, match="--storage and the tracking store are one database"):
        check_storage(
            f"sqlite:///{tmp_path}/study.db",
            "x",
            new=True,
            tracking_uri=f"sqlite:///{tmp_path}/{other}?timeout=9",
        )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("study.db", r"--storage study.db is no database URL"),
        ("sqlite:///:memory:", r"is a database in memory"),
        ("oracle9://h/x", r"--storage oracle9://h/x is no database URL"),
        ("postgres://u:hush@h/x", r"has no `postgres`; write postgresql://\*\*\*@h/x"),
        ("postgresql+asyncpg://h/x", r"its driver asyncpg is not supported"),
        ("mysql+pymysql://u:hush@h/x", r"needs the driver pymysql, which is not installed"),
        ("postgresql://u:hush@127.0.0.1:1/x", r"does not answer: postgresql://\*\*\*@127.0.0.1:1/x \(Op"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(url: str, message: str) -> None:
    with pytest.raises(SweepError, match=message) as caught:
        check_storage(url, "x", new=True)
    assert "hush" not in str(caught.value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machines.Postgres]:
    with (
        machines.postgres(tmp_path_factory.mktemp("postgres") / "pg") as started,
        pytest.MonkeyPatch.context() as p,
    ):
        p.setenv("PGPASSWORD", started.password)
        yield started


@pytest.fixture
def run_sql(server: machines.Postgres) -> Callable[..., list[tuple[object, ...]]]:
    def run(sql: str, database: str = "study") -> list[tuple[object, ...]]:
        with psycopg.connect(server.url(database), autocommit=True) as session:
            done = session.execute(sql)  # type: ignore[arg-type]
            return done.fetchall() if done.description else []

    return run


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg"])
def test_a_check_of_postgresql_makes_no_tables(
    server: machines.Postgres, run_sql: Callable[..., list[tuple[object, ...]]], driver: str
) -> None:
    run_sql("create database fresh")
    url = server.url("fresh").replace("postgresql", driver) + "?application_name=me&connect_timeout=5"
    check_storage(url, "x", new=True)
    assert run_sql("select count(*) from pg_tables where schemaname = 'public'", "fresh") == [(0,)]
    optuna.create_study(study_name="x", storage=open_database(url))
    with pytest.raises(SweepError, match="study x exists already"):
        check_storage(url, "x", new=True)
    check_storage(url, "x", new=False)
    run_sql("update alembic_version set version_num = 'v2.6.0.a'", "fresh")
    with pytest.raises(SweepError, match="is of an older Optuna"):
        check_storage(url, "y", new=True)
    run_sql("drop database fresh with (force)")


@pytest.mark.slow
def test_rights_in_postgresql(
    server: machines.Postgres, run_sql: Callable[..., list[tuple[object, ...]]]
) -> None:
    run_sql(f"create role guest login password '{server.password}'")
    run_sql("create database rights")
    guest = server.url("rights").replace("gansweep@", "guest@")
    with pytest.raises(SweepError, match="cannot be written .this user may make no tables"):
        check_storage(guest, "x", new=True)
    open_database(server.url("rights"))
    with pytest.raises(SweepError, match=r"cannot be read \(InsufficientPrivilege"):
        check_storage(guest, "x", new=True)
    run_sql("grant select on all tables in schema public to guest", "rights")
    with pytest.raises(SweepError, match="cannot be written .this user may not write alembic_version"):
        check_storage(guest, "x", new=True)
    run_sql("grant all on all tables in schema public to guest", "rights")
    with pytest.raises(SweepError, match=r"may not write studies_study_id_seq"):
        check_storage(guest, "x", new=True)
    run_sql("grant all on all sequences in schema public to guest", "rights")
    check_storage(guest, "x", new=True)
    run_sql("alter role guest set default_transaction_read_only = on")
    with pytest.raises(SweepError, match="its transactions are read-only"):
        check_storage(guest, "x", new=True)


@pytest.mark.slow
def test_a_database_of_postgresql_that_is_not_there(server: machines.Postgres) -> None:
    with pytest.raises(
        SweepError, match="is not there .*no database nowhere.; make it: createdb -h localhost"
    ):
        check_storage(server.url("nowhere"), "x", new=True)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST"])
def test_one_database_of_postgresql_for_both_is_refused(server: machines.Postgres, other: str) -> None:
    uri = server.url("study").replace("127.0.0.1", other).replace("postgresql:", "postgresql+psycopg:")
    with pytest.raises(SweepError, match="are one database"):
        check_storage(server.url("study"), "x", new=True, tracking_uri=uri)
    check_storage(server.url("study"), "x", new=True, tracking_uri=server.url("mlflow"))
