"""Checks of the folders that a sweep writes."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli.doctor.places import check_folders


def test_folders_that_can_be_made(tmp_path: Path) -> None:
    found = check_folders(
        tmp_path / "not/there", f"sqlite:///{tmp_path}/ml/m.db", f"sqlite:///{tmp_path}/s.db"
    )
    assert {finding.level for finding in found} <= {"ok", "warn"}  # a disk may be nearly full
    assert [
        str(tmp_path / name) in f.text for name, f in zip(["not/there", "ml", "ml", ""], found, strict=True)
    ]
    assert list(tmp_path.iterdir()) == []


def test_an_out_below_a_file_is_bad(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (found,) = check_folders(tmp_path / "file/runs", "", "")
    assert (found.name, found.level) == ("disk", "bad")
    assert "file is not a folder); choose another --out" in found.text
