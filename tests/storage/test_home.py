"""A user without a home or a name, and where the caches of one are whose home cannot be written."""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.storage.files import cache_root
from pipeline.storage.home import private_folder, settle_user

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture(autouse=True)
def _temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("HOME", "GANSWEEP_CACHE", *NAMES):
        monkeypatch.setenv(name, "")  # put back after the test, whatever it set


def no_passwd_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_a_user_without_a_home_and_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    no_passwd_entry(monkeypatch)
    settle_user()
    assert os.environ["HOME"] == str(tmp_path / f"gansweep-{os.getuid()}")
    assert getpass.getuser() == f"uid-{os.getuid()}"
    assert stat.S_IMODE((tmp_path / f"gansweep-{os.getuid()}").stat().st_mode) == 0o700
    assert "stands in for it" in caplog.text
    caplog.clear()
    settle_user()
    assert caplog.text == ""


def test_one_that_is_there_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/of/mine")
    monkeypatch.setenv("USER", "me")
    settle_user()
    assert (os.environ["HOME"], os.environ["USER"]) == ("/home/of/mine", "me")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_folder_that_is_not_the_users_own_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / f"gansweep-{os.getuid()}"
    place.symlink_to(tmp_path) if kind == "link" else place.touch()
    with pytest.raises(ConfigError, match=r"no folder for caches: .*; export GANSWEEP_CACHE=FOLDER and HOME"):
        private_folder()


def test_no_temporary_folder_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/dev/null"])
    with pytest.raises(ConfigError, match=r"no folder for caches: .*No usable temporary directory"):
        private_folder()


def test_caches_are_in_the_home_or_where_the_user_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "gansweep"
    monkeypatch.setenv("GANSWEEP_CACHE", "~/mine")
    assert cache_root() == tmp_path / "mine"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANSWEEP_CACHE", "here")
    assert cache_root() == tmp_path / "here"


def test_a_home_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    expected = tmp_path / f"gansweep-{os.getuid()}"
    assert cache_root() == cache_root() == expected
    assert os.environ["GANSWEEP_CACHE"] == str(expected)  # Ray's workers agree
    assert len(caplog.messages) == 1


def test_a_cache_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for named in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("GANSWEEP_CACHE", str(named))
        with pytest.raises(ConfigError, match=f"GANSWEEP_CACHE={named} cannot be written"):
            cache_root()
