"""Folders of prepared images: shared, copied to other nodes, left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from images import noise

from pipeline.data.arrays.array_rows import ArrayRows
from pipeline.data.options import AS_FOUND
from pipeline.data.preparing.prepared_cache import copy_prepared, open_prepared, prepare_in
from pipeline.data.source_types import RawImages

IMAGES = noise((70, 8, 8, 1))


def raw(images: np.ndarray = IMAGES) -> RawImages:
    return RawImages(images=ArrayRows(images), labels=np.arange(70) % 3, names=["a", "b", "c"])


@pytest.fixture
def there(tmp_path: Path) -> Path:
    prepare_in(tmp_path / "there", "npz-1", raw(), AS_FOUND, "npz:a.npz")
    return tmp_path / "there" / "npz-1"


def pieces(folder: Path, file: str) -> Iterator[bytes]:
    if (folder / file).exists():
        content = (folder / file).read_bytes()
        yield from (content[start : start + 1000] for start in range(0, len(content), 1000))


@pytest.mark.parametrize("before", ["nothing", "empty", "cut", "dangling", "other", "whole"])
def test_a_copy_replaces_what_cannot_be_used(before: str, there: Path, tmp_path: Path) -> None:
    here, wanted = tmp_path / "here" / "npz-1", open_prepared(there)
    assert wanted is not None
    if before in ("cut", "whole", "other"):
        prepare_in(here.parent, here.name, raw(255 - IMAGES if before == "other" else IMAGES), AS_FOUND, "x")
    if before == "cut":
        os.truncate(here / "images.npy", 1000)
    if before == "empty":
        here.mkdir(parents=True)
    if before == "dangling":
        here.parent.mkdir()
        here.symlink_to("gone")
    asked: list[str] = []

    def read(file: str) -> Iterator[bytes]:
        asked.append(file)
        return pieces(there, file)

    found = copy_prepared(here, wanted.fingerprint, read)
    assert np.array_equal(found.images, wanted.images)
    assert found.labels is not None
    assert found.labels.tolist() == wanted.labels.tolist()  # type: ignore[union-attr]
    assert (asked == []) == (before == "whole")
    assert os.listdir(here.parent) == [here.name]


@pytest.mark.parametrize("missing", ["meta.json", "images.npy", "labels.npy"])
def test_a_copy_is_whole_or_not_there(missing: str, there: Path, tmp_path: Path) -> None:
    wanted = open_prepared(there)
    assert wanted is not None
    (there / missing).unlink()
    with pytest.raises(FileNotFoundError, match="have gone or are damaged; a resume prepares"):
        copy_prepared(tmp_path / "here" / "npz-1", wanted.fingerprint, lambda file: pieces(there, file))
    assert os.listdir(tmp_path / "here") == []


def test_images_without_a_key_stay_while_others_use_them(tmp_path: Path) -> None:
    first, folder = prepare_in(tmp_path, "", raw(), AS_FOUND, "mine:load")
    inode = os.stat(tmp_path / str(folder) / "images.npy").st_ino
    second, again = prepare_in(tmp_path, "", raw(), AS_FOUND, "mine:load")
    assert (folder, first.fingerprint) == (again, second.fingerprint)
    assert os.stat(tmp_path / str(folder) / "images.npy").st_ino == inode
    other = RawImages(images=ArrayRows(IMAGES), labels=np.arange(70) % 3, names=["x", "y", "z"])
    renamed, beside = prepare_in(tmp_path, "", other, AS_FOUND, "mine:load")
    assert (renamed.classes, beside == folder) == (("x", "y", "z"), False)
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, beside.name}  # type: ignore[union-attr]


def test_what_killed_processes_left_goes_after_a_day(there: Path) -> None:
    for name, age in ((".npz-2.partial", 25), (".npz-3.partial", 23)):
        left = there.with_name(name)
        left.mkdir()
        (left / "images.npy").write_bytes(b"1")
        for path in (left / "images.npy", left):
            changed = path.stat().st_mtime - age * 3600
            os.utime(path, (changed, changed))
    prepare_in(there.parent, "npz-4", raw(), AS_FOUND, "npz:a.npz")
    assert sorted(os.listdir(there.parent)) == [".npz-3.partial", "npz-1", "npz-4"]
