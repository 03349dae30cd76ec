"""Where Ray's sockets lie: TMPDIR's folder if it can hold them, else a short one, and why."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cluster import socket_folder
from pipeline.cluster.socket_folder import PATH_BYTES, mps_folder, ray_folder
from pipeline.errors import ConfigError


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with a short path; neither variable is set."""
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    folder = tempfile.mkdtemp(prefix="s", dir="/tmp")
    yield Path(folder)
    shutil.rmtree(folder)


def test_tmpdir_is_used_where_it_can_be(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(short))
    assert ray_folder() == socket_folder.SocketFolder(short / "ray")
    assert mps_folder().parent == short
    assert list(short.iterdir()) == [], "a try leaves nothing"


@pytest.mark.parametrize("tmpdir", [None, ""])
def test_without_tmpdir_it_is_tmp(short: Path, monkeypatch: pytest.MonkeyPatch, tmpdir: str | None) -> None:
    if tmpdir is not None:
        monkeypatch.setenv("TMPDIR", tmpdir)
    assert ray_folder().path.parent == Path("/tmp")


def test_a_relative_tmpdir_is_made_absolute(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(short)
    monkeypatch.setenv("TMPDIR", ".")
    assert ray_folder().path == short / "ray"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("t" * PATH_BYTES, "a socket's path holds 107 bytes, here it would have"),
        ("tmp-ä", "Ray takes ASCII without quotes"),
        ("it's", "Ray takes ASCII without quotes"),
        ("gone", "gone is not there"),
        ("file", "file is not there"),
    ],
)
def test_a_tmpdir_that_cannot_hold_sockets_is_replaced_and_told(
    short: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    if name == "file":
        (short / name).touch()
    elif name != "gone":
        (short / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(short / name))
    found = ray_folder()
    assert found.path.parent == Path("/tmp")
    assert found.note.startswith(f"Ray's sockets and logs are in {found.path}: {short / name}")
    assert reason in found.note
    assert mps_folder().parent == Path("/tmp")


def test_where_ray_is_somebody_elses_the_user_has_a_folder_of_his_own(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short / "ray").touch()  # as little of use as a folder of somebody else
    monkeypatch.setenv("TMPDIR", str(short))
    found = ray_folder()
    assert found.path == short / f"ray-{os.getuid()}"
    assert f"{short}/ray cannot be used" in found.note


def test_ray_tmpdir_is_never_replaced(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short / "new"))
    assert ray_folder().path == short / "new/ray"
    monkeypatch.setenv("RAY_TMPDIR", str(short / ("t" * 60)))
    with pytest.raises(ConfigError, match=r"RAY_TMPDIR cannot hold .*107 bytes.*export RAY_TMPDIR=/tmp"):
        ray_folder()


def test_a_disk_without_space_holds_none(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_folder, "_LEAST_BYTES", 2**62)
    with pytest.raises(ConfigError, match=r"no folder .*its disk is full.*export RAY_TMPDIR=FOLDER"):
        ray_folder()
