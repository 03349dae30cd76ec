"""Checks of the machine: a container's CPU limit, the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.doctor.finding import Finding
from pipeline.cli.doctor.machine import check_cores, check_disk


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
    ],
)
def test_a_containers_limit_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: float
) -> None:
    _machine_of_8(monkeypatch)
    _write(tmp_path, files)
    found = check_cores(tmp_path)
    assert found.level == "warn"
    assert f"8, of which this container may use {cores:g}" in found.text
    assert f"--concurrency {int(cores)}" in found.text


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "max 100000"},
        {"cpu.max": "1600000 100000"},
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
        {},
    ],
)
def test_without_a_lower_limit_all_cores_are_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    _machine_of_8(monkeypatch)
    _write(tmp_path, files)
    assert check_cores(tmp_path) == Finding("cores", "ok", "8 usable of 8")


def test_the_disk_is_that_of_the_nearest_existing_folder(tmp_path: Path) -> None:
    assert str(tmp_path) in check_disk(tmp_path / "not" / "there").text
    assert list(tmp_path.iterdir()) == []


def _machine_of_8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
