"""Image files below a folder: what is left out wherever the output lies, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from images import noise, write_folder

from pipeline.config import SWEEP_HEAD
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.data.folder_walk import FolderWalk
from pipeline.errors import DataError


def photos(root: Path) -> Path:
    """80 images in class0 .. class1."""
    return write_folder(root / "photos", noise((80, 8, 8, 1)), [i % 2 for i in range(80)])


def grids(folder: Path, count: int = 3) -> Path:
    return write_folder(folder, noise((count, 20, 20, 1), 7))


def sweep(folder: Path) -> Path:
    """A sweep's folder with three grids."""
    grids(folder / "trials" / "0" / "samples")
    (folder / "sweep.toml").write_text(f"{SWEEP_HEAD}: one resolved sweep.\n")
    return folder


def load(root: Path, out: Path | None = None) -> Dataset:
    return load_dataset(f"folder:{root}", out=out)


@pytest.mark.parametrize("way", ["plain", "dots", "relative", "link to out", "link to data", "deeper"])
def test_out_below_the_data_is_left_out_by_every_way_to_it(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    root = photos(tmp_path)
    out = {
        "plain": root / "runs",
        "dots": root / "class0" / ".." / "runs",
        "relative": Path("runs"),
        "link to out": tmp_path / "link",
        "link to data": tmp_path / "data" / "runs",
        "deeper": root / "deep" / "down",
    }[way]
    monkeypatch.chdir(root)
    (tmp_path / "data").symlink_to(root)
    (tmp_path / "link").symlink_to(root / "runs")
    before = load(root, out)
    assert "(the output folder, 0 images)" in caplog.text
    caplog.clear()
    (root / "runs").mkdir()
    grids(out)
    after = load(root, out)
    assert "(the output folder, 3 images)" in caplog.text
    assert after.fingerprint == before.fingerprint
    assert after.classes == ("class0", "class1")


def test_out_that_is_a_link_out_of_the_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pipeline")
    root = photos(tmp_path)
    before = load(root)
    (root / "runs").symlink_to(grids(tmp_path / "elsewhere"))
    assert load(root, root / "runs").fingerprint == before.fingerprint
    assert "left out of the images: runs (the output folder, 3 images)" in caplog.text


@pytest.mark.parametrize("out", ["photos", ".", "photos/class0/../.."])
def test_data_that_is_out_or_lies_in_it_loses_only_what_a_sweep_made(out: str, tmp_path: Path) -> None:
    root = photos(tmp_path)
    before = load(root, tmp_path / out)
    sweep(root / "a")
    sweep(root / "class1" / "b")
    grids(root / "artifacts" / ("0" * 32) / "artifacts")
    after = load(root, tmp_path / out)
    assert (after.fingerprint, after.classes) == (before.fingerprint, before.classes)


def test_results_at_any_depth_are_named_by_who_made_them(tmp_path: Path) -> None:
    root = photos(tmp_path)
    sweep(root / "x" / "y" / "a")
    grids(root / "mlruns", 5)
    for name in ("b", "c"):
        sweep(root / name)
    walk = FolderWalk(root, (".png",), {root / "out": "the output folder"})
    assert len(walk.files) == 80
    assert walk.describe_left_out() == (
        "mlruns (MLflow, 5 images), b (a sweep, 3 images), c (a sweep, 3 images), 2 more (3 images)"
    )


def test_a_folder_that_is_named_is_used_whatever_made_it(tmp_path: Path) -> None:
    root = sweep(tmp_path / "runs" / "a")
    walk = FolderWalk(root, (".png",), {root.parent: "the output folder"})
    assert (len(walk.files), walk.left_out) == (3, {})
    inner = FolderWalk(root / "trials", (".png",), {root / "trials": "the output folder"})
    assert (len(inner.files), inner.left_out) == (3, {})


def test_the_cache_below_the_data_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = photos(tmp_path)
    before = load(root)
    monkeypatch.setenv("GANSWEEP_CACHE", str(root / "cache"))
    grids(root / "cache" / "downloads" / "celeba")
    assert load(root).fingerprint == before.fingerprint


def test_what_has_been_left_out_stands_in_the_error_too(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos" / "train", noise((80, 8, 8, 1))).parent
    with pytest.raises(DataError, match=r"0 image files .*left out: train"):
        load(root, root / "train")
