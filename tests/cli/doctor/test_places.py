"""Checks of the folders that a sweep writes."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli.doctor.places import check_folders


def test_folders_that_can_be_made(tmp_path: Path) -> None:
    databases = [f"sqlite:///{tmp_path}/{name}" for name in ("ml/m.db", "s.db")]
    found = check_folders(tmp_path / "not/there", *databases)
    assert {finding.level for finding in found} <= {"ok", "warn"}  # a disk may be nearly full
    for name, finding in zip(["not/there", "ml", "ml/artifacts", ""], found, strict=True):
        assert f", {tmp_path / name}" in finding.text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_one_finding(tmp_path: Path) -> None:
    assert len(check_folders(tmp_path, f"sqlite:///{tmp_path}/m.db", f"sqlite:///{tmp_path}/s.db")) == 1
    (tmp_path / "artifacts").touch()
    _, artifacts = check_folders(tmp_path, f"sqlite:///{tmp_path}/m.db", "")
    assert (artifacts.level, "correct --tracking-uri" in artifacts.text) == ("bad", True)


def test_an_out_below_a_file_is_bad(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (found,) = check_folders(tmp_path / "file/runs", "", "")
    assert (found.name, found.level) == ("disk", "bad")
    assert "file is not a folder); choose another --out" in found.text
