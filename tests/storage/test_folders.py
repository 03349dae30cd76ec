"""Whether folders can be written, asked without writing: by root and by others, on real file systems."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import tmpfs

from pipeline.errors import SweepError
from pipeline.storage.folders import Folder, database_folders, existing_folder, free_bytes


def out(path: Path) -> Folder:
    return Folder(path, "--out", "choose another --out")


@pytest.fixture
def mounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A tmpfs with the options of the parameter; skipped where this user may not mount one."""
    with tmpfs(tmp_path / "disk", request.param) as folder:
        yield folder


def test_a_folder_that_can_be_made_passes_and_is_not_made(tmp_path: Path) -> None:
    assert out(tmp_path / "a/b").check() == tmp_path
    assert list(tmp_path.iterdir()) == []
    assert free_bytes(tmp_path / "a/b") > 0


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("file", "not a folder"),
        ("file/runs", "file is not a folder"),
        ("file/a/b", "file is not a folder"),
        ("link", "link is a link to gone, which is not there"),
        ("link/runs", "link is a link to gone, which is not there"),
        ("loop/runs", "too many levels of symbolic links"),
        ("n" * 256, "file name too long"),
        ("new/" + "n" * 256, "the name has 256 bytes, 255 are possible"),
        ("ä" * 128 + "/runs", "file name too long"),
        ("/".join(["n" * 200] * 20), "leave room for what lies below"),
    ],
)
def test_what_cannot_be_made_is_refused_with_its_reason(tmp_path: Path, name: str, seen: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(tmp_path.iterdir())
    message = rf"^--out cannot be written: .* \(.*{seen}\); choose another --out$"
    with pytest.raises(SweepError, match=message):
        out(tmp_path / name).check()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("mounted", ["ro"], indirect=True)
def test_a_read_only_disk(mounted: Path) -> None:
    with pytest.raises(SweepError, match="read-only file system"):
        out(mounted / "runs").check()


@pytest.mark.parametrize("mounted", ["size=1m,nr_inodes=2"], indirect=True)
def test_a_disk_without_inodes(mounted: Path) -> None:
    (mounted / "file").touch()
    with pytest.raises(SweepError, match="no inodes are left"):
        out(mounted / "runs").check()


def test_a_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, how, **_: Path(path).name != "theirs")
    monkeypatch.setattr(os, "supports_effective_ids", {os.access})
    (tmp_path / "theirs").mkdir()
    with pytest.raises(SweepError, match="theirs/runs .permission denied"):
        out(tmp_path / "theirs/runs").check()
    with pytest.raises(SweepError, match=f"{tmp_path}/theirs .permission denied"):
        out(tmp_path).check_content([tmp_path / "missing", tmp_path / "theirs"])


def test_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert existing_folder(tmp_path / "new") == tmp_path


def test_the_folders_of_databases(tmp_path: Path) -> None:
    found = database_folders(f"sqlite:///{tmp_path}/m/ml.db", f"sqlite:///{tmp_path}/s/st.db")
    assert [str(folder.path.relative_to(tmp_path)) for folder in found] == ["m", "m/artifacts", "s"]
    assert list(database_folders("http://host", "postgresql://host/db")) == []
