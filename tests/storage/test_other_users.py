"""Folders of other users, which this one may not look into, are passed over; none of them is an error."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from other_user import as_another_user

from pipeline.config import SweepPaths
from pipeline.storage.database import same_database
from pipeline.storage.folders import may_write
from pipeline.storage.home import settle_user
from pipeline.storage.summary_file import read_summary
from pipeline.sweep.remains import original_of
from pipeline.tracking.moved_store import check_store_remains, location_now


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that all users may write, with one in it that is its owner's alone."""
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    place.chmod(0o777)
    (place / "closed" / "runs" / "a").mkdir(parents=True)
    mode = 0o700 if os.getuid() == 0 else 0o000
    (place / "closed").chmod(mode)
    yield place
    (place / "closed").chmod(0o700)
    shutil.rmtree(place)


def test_a_cache_in_a_closed_home(folder: Path) -> None:
    assert as_another_user(lambda: may_write(folder / "closed" / ".cache" / "gansweep")) == "False"


def test_a_home_that_is_closed_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder / "closed"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    home = as_another_user(lambda: settle_user() or os.environ["HOME"])
    assert home.startswith(f"{folder}/gansweep-")


def test_a_sweep_that_came_from_a_closed_folder(folder: Path) -> None:
    before, root = folder / "closed" / "runs" / "a", folder / "a"
    root.mkdir()
    store = f"sqlite:///{before.parent}/mlflow.db"
    (root / "sweep.toml").write_text(f'[registry]\ntracking_uri = "{store}"\nfolder = "{before}"\n')
    (root / "shipped.json").write_text('{"parent": "r0"}')
    (root / "sweep.toml").chmod(0o644)
    (root / "shipped.json").chmod(0o644)
    paths = SweepPaths(root)
    assert as_another_user(lambda: original_of(paths)) == "None"
    assert as_another_user(lambda: same_database(store, f"sqlite:///{folder}/mlflow.db")) == "False"
    assert "RegistryError('the tracking store" in as_another_user(
        lambda: check_store_remains(paths, store, "x")
    )


def test_a_store_whose_artifacts_were_in_a_closed_folder(folder: Path) -> None:
    before = (folder / "closed" / "runs" / "artifacts").as_uri()
    with sqlite3.connect(folder / "mlflow.db") as store:
        store.execute("create table experiments (name, artifact_location)")
        store.execute("insert into experiments values ('gansweep/a', ?)", (before,))
    (folder / "mlflow.db").chmod(0o644)
    now = as_another_user(lambda: location_now(f"sqlite:///{folder}/mlflow.db", f"{before}/m"))
    assert now == f"{folder.as_uri()}/artifacts/m"


def test_a_summary_in_a_closed_folder(folder: Path) -> None:
    said = as_another_user(lambda: read_summary(folder / "closed" / "runs" / "a" / "summary.json"))
    assert "summary.json cannot be read (permission denied)" in said
