"""What a user types for a place on disk becomes absolute, whatever characters it has."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import make_url

from pipeline.errors import ConfigError
from pipeline.storage.addresses import (
    absolute_path,
    absolute_source,
    absolute_sqlite,
    parse_sqlite,
    sqlite_address,
    sqlite_path,
)

ODD = ["a b", "a?b", "a#b", "a%41b", "50%off", "a[b]&+='\"", "é", "e\u0301", "a:b@c", "-a", "a\nb"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", ODD)
def test_an_sqlite_address_names_its_file_for_sqlalchemy_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "x.db"
    address = sqlite_address(path)
    assert sqlite_path(address) == path
    assert make_url(address).database == str(path)
    assert absolute_sqlite(address) == address


def test_only_names_that_need_it_are_written_otherwise(tmp_path: Path) -> None:
    assert sqlite_address(Path("/x/a b#c/m.db")) == "sqlite:////x/a b#c/m.db"
    assert sqlite_address(Path("/x/a?/m.db")) == "sqlite+pysqlite:////x/a%3F/m.db"


@pytest.mark.parametrize(
    ("typed", "absolute"),
    [
        ("sqlite:///study.db", "sqlite:///{here}/study.db"),
        ("sqlite:///../study.db", "sqlite:///{above}/study.db"),
        ("sqlite:///~/study.db", "sqlite:///{here}/home/study.db"),
        ("sqlite+pysqlite:///s.db?timeout=5", "sqlite+pysqlite:///{here}/s.db?timeout=5"),
        ("sqlite:///file:s.db?mode=ro&uri=true", "sqlite:///file:{here}/s.db?mode=ro&uri=true"),
        ("sqlite:////abs/s.db", "sqlite:////abs/s.db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("http://host:5000", "http://host:5000"),
        ("", ""),
    ],
)
def test_sqlite_addresses_become_absolute(tmp_path: Path, typed: str, absolute: str) -> None:
    assert absolute_sqlite(typed) == absolute.format(here=tmp_path, above=tmp_path.parent)


def test_an_address_with_uri_opens_the_file_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "a %41?").mkdir()
    address = parse_sqlite("sqlite:///file:x.db?uri=true")
    assert address is not None
    found = make_url(str(address.at(tmp_path / "a %41?" / "x.db")))
    sqlite3.connect(str(found.database), uri=True).execute("create table t (a)")
    assert (tmp_path / "a %41?" / "x.db").is_file()


@pytest.mark.parametrize(
    "typed",
    [
        *("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite+pysqlite://", "sqlite:study.db"),
        *("sqlite://study.db", "sqlite:///file::memory:?uri=true", "sqlite:///file:x?mode=memory&uri=true"),
    ],
)
def test_a_store_in_memory_is_refused(typed: str) -> None:
    with pytest.raises(ConfigError, match=r"write --storage sqlite:///"):
        absolute_sqlite(typed, "--storage")


def test_a_source_with_a_path_becomes_absolute(tmp_path: Path) -> None:
    assert absolute_source("folder:photos") == f"folder:{tmp_path}/photos"
    assert absolute_source("npz:~/x.npz") == f"npz:{tmp_path}/home/x.npz"
    for other in ("digits", "mine:images", "folder:", "photos"):
        assert absolute_source(other) == other


def test_a_link_stays_and_what_lies_above_its_target_is_found(tmp_path: Path) -> None:
    (tmp_path / "disk" / "photos").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "photos")
    assert absolute_path("link") == f"{tmp_path}/link"
    assert absolute_path("link/../x") == f"{tmp_path}/disk/x"
    assert absolute_path("disk/../x/") == f"{tmp_path}/x"


def test_a_path_that_no_file_can_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="not UTF-8"):
        absolute_path(os.fsdecode(b"caf\xe9"))


def test_a_deleted_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="was deleted"):
        absolute_path("runs")
    assert absolute_path("/runs") == "/runs"
