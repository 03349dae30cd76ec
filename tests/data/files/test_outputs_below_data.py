"""Results below a folder of images: left out wherever the output lies, and told."""

from __future__ import annotations

from pathlib import Path

import pytest
from images import noise, write_folder
from trees import WAYS, output_by

from pipeline.config import SWEEP_HEAD
from pipeline.data.dataset import Dataset, load_dataset
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


def load(root: Path, out: Path | None = None, cache: Path | None = None) -> Dataset:
    return load_dataset(f"folder:{root}", out=out, cache=cache)


@pytest.mark.parametrize("way", WAYS)
def test_out_below_the_data_is_left_out_by_every_way_to_it(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path)
    out = output_by(way, root, "class0")
    monkeypatch.chdir(root)
    before = load(root, out)
    assert before.understood.left_out == {}
    (root / "runs").mkdir()
    grids(out)
    after = load(root, out, tmp_path / "fresh")
    assert after.understood.left_out == {"in the output folder": 3}
    assert after.fingerprint == before.fingerprint
    assert after.classes == ("class0", "class1")


def test_out_that_is_a_link_out_of_the_data(tmp_path: Path) -> None:
    root = photos(tmp_path)
    before = load(root)
    (root / "runs").symlink_to(grids(tmp_path / "elsewhere"))
    after = load(root, root / "runs", tmp_path / "fresh")
    assert after.fingerprint == before.fingerprint
    assert after.understood.examples["in the output folder"][0] == "runs/0000.png"


@pytest.mark.parametrize("out", ["photos", ".", "photos/class0/../.."])
def test_data_that_is_out_or_lies_in_it_loses_only_what_a_sweep_made(out: str, tmp_path: Path) -> None:
    root = photos(tmp_path)
    before = load(root, tmp_path / out)
    sweep(root / "a")
    sweep(root / "class1" / "b")
    grids(root / "artifacts" / ("0" * 32) / "artifacts")
    after = load(root, tmp_path / out)
    assert (after.fingerprint, after.classes) == (before.fingerprint, before.classes)


def test_results_at_any_depth_are_told_by_who_made_them(tmp_path: Path) -> None:
    root = photos(tmp_path)
    sweep(root / "x" / "y" / "a")
    grids(root / "mlruns", 5)
    for name in ("b", "c"):
        sweep(root / name)
    seen = load(root, root / "out")
    assert len(seen.train) + len(seen.held) == 80
    assert seen.understood.left_out == {"in results of a sweep": 9, "in results of MLflow": 5}


def test_the_cache_below_the_data_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = photos(tmp_path)
    before = load(root)
    monkeypatch.setenv("GANSWEEP_CACHE", str(root / "cache"))
    grids(root / "cache" / "downloads" / "celeba")
    assert load(root).fingerprint == before.fingerprint


def test_what_has_been_left_out_stands_in_the_error_too(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos" / "train", noise((80, 8, 8, 1))).parent
    with pytest.raises(DataError, match=r"0 usable images .*80 in the output folder \(train/"):
        load(root, root / "train")
