"""sweep.toml: what lies beside the sweep is named from there, and found again where it moved."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import DataError, EvaluatorError
from pipeline.search.space.toml import dump_toml
from pipeline.storage.moved_sweep import (
    check_inputs_remain,
    read_sweep_toml,
    store_places,
    with_relative_addresses,
)


def make_store(path: Path, run: str = "r0") -> None:
    with contextlib.closing(sqlite3.connect(path)) as store:
        store.execute("create table runs (run_uuid)")
        store.execute("insert into runs values (?)", (run,))
        store.commit()


def write_sweep(root: Path, **registry: str) -> SweepPaths:
    """A sweep in x/runs/a as it is written: images in x/photos, MLflow in x/runs."""
    x = root.parent.parent
    for folder in (root, x / "photos"):
        folder.mkdir(parents=True)
    tables: dict[str, Any] = {
        "sweep": {"name": "a", "data": f"folder:{x}/photos", "extractor_weights": f"{root.parent}/w.pth"},
        "data": {"source": f"folder:{x}/photos"},
        "registry": {
            "tracking_uri": f"sqlite:///{root.parent}/mlflow.db",
            "storage": "",
            "folder": str(root),
        },
    }
    tables["registry"] |= registry
    make_store(root.parent / "mlflow.db")
    (root / "shipped.json").write_text(json.dumps({"parent": "r0"}))
    if tables["registry"]["folder"]:
        tables = with_relative_addresses(tables, root)
    (root / "sweep.toml").write_text(dump_toml(tables))
    return SweepPaths(root)


def addresses(root: Path) -> tuple[str, str]:
    tables = read_sweep_toml(SweepPaths(root))
    return tables["sweep"]["data"], tables["registry"]["tracking_uri"]


def test_what_lies_beside_the_sweep_is_written_as_seen_from_it(tmp_path: Path) -> None:
    text = write_sweep(tmp_path / "x" / "runs" / "a").config.read_text()
    assert 'tracking_uri = "sqlite:///../mlflow.db"' in text
    assert 'extractor_weights = "../w.pth"' in text
    assert f'data = "folder:{tmp_path}/x/photos"' in text  # not below the sweep's parent


def test_a_sweep_that_stays_reads_what_it_wrote(tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "x" / "runs" / "a").root
    assert addresses(root) == (f"folder:{tmp_path}/x/photos", f"sqlite:///{tmp_path}/x/runs/mlflow.db")


def test_everything_moves_along(tmp_path: Path) -> None:
    write_sweep(tmp_path / "x" / "runs" / "a")
    (tmp_path / "x").rename(tmp_path / "z")
    root = tmp_path / "z" / "runs" / "a"
    assert addresses(root) == (f"folder:{tmp_path}/z/photos", f"sqlite:///{tmp_path}/z/runs/mlflow.db")


def test_the_folder_of_sweeps_is_renamed(tmp_path: Path) -> None:
    write_sweep(tmp_path / "x" / "runs" / "a")
    (tmp_path / "x" / "runs").rename(tmp_path / "x" / "archive")
    root = tmp_path / "x" / "archive" / "a"
    assert addresses(root) == (f"folder:{tmp_path}/x/photos", f"sqlite:///{tmp_path}/x/archive/mlflow.db")


@pytest.mark.parametrize("other", [False, True])
def test_a_sweep_that_moved_alone_keeps_its_store(tmp_path: Path, other: bool) -> None:
    """Also where another store lies beside its new place: that one does not have its run."""
    write_sweep(tmp_path / "x" / "runs" / "a")
    (tmp_path / "y").mkdir()
    (tmp_path / "x" / "runs" / "a").rename(tmp_path / "y" / "b")
    if other:
        make_store(tmp_path / "y" / "mlflow.db", run="of another")
    assert addresses(tmp_path / "y" / "b")[1] == f"sqlite:///{tmp_path}/x/runs/mlflow.db"


def test_a_copy_has_the_store_that_was_copied_with_it(tmp_path: Path) -> None:
    write_sweep(tmp_path / "x" / "runs" / "a")
    shutil.copytree(tmp_path / "x" / "runs", tmp_path / "copy")
    assert addresses(tmp_path / "copy" / "a")[1] == f"sqlite:///{tmp_path}/copy/mlflow.db"


def test_of_an_earlier_version_the_store_beside_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_sweep(tmp_path / "x" / "runs" / "a", folder="")
    paths.config.write_text(paths.config.read_text().replace(f"folder:{tmp_path}/x/photos", "folder:photos"))
    (tmp_path / "x" / "runs").rename(tmp_path / "archive")
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "archive" / "a"
    assert addresses(root) == (f"folder:{tmp_path}/photos", f"sqlite:///{tmp_path}/archive/mlflow.db")


def test_a_store_that_has_gone_is_named_by_its_places(tmp_path: Path) -> None:
    write_sweep(tmp_path / "x" / "runs" / "a")
    (tmp_path / "x").rename(tmp_path / "z")
    runs = [tmp_path / letter / "runs" / "mlflow.db" for letter in "zx"]
    runs[0].unlink()
    assert store_places(SweepPaths(tmp_path / "z" / "runs" / "a"), "tracking_uri") == runs
    assert addresses(tmp_path / "z" / "runs" / "a")[1] == f"sqlite:///{runs[0]}"


def test_the_places_are_the_same_through_a_link(tmp_path: Path) -> None:
    root = write_sweep(tmp_path / "x" / "runs" / "a").root
    (tmp_path / "link").symlink_to(root)
    assert store_places(SweepPaths(tmp_path / "link"), "tracking_uri") == [root.parent / "mlflow.db"]


def test_images_that_have_gone_are_named_by_where_they_were(tmp_path: Path) -> None:
    write_sweep(tmp_path / "x" / "runs" / "a")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "x" / "runs").rename(tmp_path / "deep" / "er" / "runs")
    (tmp_path / "x" / "photos").rmdir()
    assert addresses(tmp_path / "deep" / "er" / "runs" / "a")[0] == f"folder:{tmp_path}/x/photos"


def test_images_that_have_gone_are_told_with_what_to_type(tmp_path: Path) -> None:
    config = SweepConfig(data=f"npz:{tmp_path}/x.npz", extractor_weights=f"{tmp_path}/w.pth")
    with pytest.raises(DataError, match=r"gansweep resume 'my runs/a' --data npz:PATH$"):
        check_inputs_remain(config, "my runs/a")
    (tmp_path / "x.npz").touch()
    with pytest.raises(EvaluatorError, match=r"--extractor-weights PATH$"):
        check_inputs_remain(config, "a")
    (tmp_path / "w.pth").touch()
    check_inputs_remain(config, "a")


def test_a_configuration_of_a_copy_moves_with_it(tmp_path: Path) -> None:
    """`hf:PATH:CONFIG` is no path, but names one."""
    root = tmp_path / "x" / "runs" / "a"
    (root.parent / "copy").mkdir(parents=True)
    root.mkdir()
    tables = {
        "sweep": {"data": f"hf:{root.parent}/copy:plain"},
        "data": {"source": f"hf:{root.parent}/copy:plain"},
        "registry": {"folder": str(root)},
    }
    (root / "sweep.toml").write_text(dump_toml(with_relative_addresses(tables, root)), encoding="utf-8")
    assert "hf:../copy:plain" in (root / "sweep.toml").read_text(encoding="utf-8")
    (tmp_path / "x").rename(tmp_path / "y")
    moved = tmp_path / "y" / "runs"
    data = read_sweep_toml(SweepPaths(moved / "a"))["sweep"]["data"]
    assert data == f"hf:{moved}/copy:plain"
    check_inputs_remain(SweepConfig(data=data), "a")
    (moved / "copy").rename(moved / "gone")
    with pytest.raises(DataError, match="have gone from"):
        check_inputs_remain(SweepConfig(data=data), "a")


def test_a_name_on_the_hub_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "runs" / "a"
    root.mkdir(parents=True)
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)  # where a copy of the same name lies
    for name in ("mnist", "mnist:plain", "someone/mnist"):
        text = dump_toml({"sweep": {"data": f"hf:{name}"}, "registry": {"folder": str(root)}})
        (root / "sweep.toml").write_text(text, encoding="utf-8")
        assert read_sweep_toml(SweepPaths(root))["sweep"]["data"] == f"hf:{name}"


def test_a_colon_in_a_folders_name_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="have gone from .*photos:old"):
        check_inputs_remain(SweepConfig(data=f"folder:{tmp_path}/photos:old"), "a")
