"""Where the images of a sweep are opened on a node; with a real cluster: in integration/ray."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from images import noise

from pipeline.cluster import shared_images
from pipeline.cluster.shared_images import SharedFolder, open_images, read_piece
from pipeline.data.arrays.array_rows import ArrayRows
from pipeline.data.options import AS_FOUND
from pipeline.data.preparing.prepared_cache import prepare_in
from pipeline.data.source_types import RawImages


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedFolder:
    """Images in a folder of the driver's, which this node does not see; `there` stands for the network."""
    raw = RawImages(images=ArrayRows(noise((70, 8, 8, 1))))
    prepared, folder = prepare_in(tmp_path / "there", "noise-1", raw, AS_FOUND, "noise")
    assert folder is not None

    def pieces(shared: SharedFolder, file: str) -> Iterator[bytes]:
        if piece := read_piece(str(folder / file), 0):
            yield piece

    monkeypatch.setattr(shared_images, "_remote_pieces", pieces)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("GANSWEEP_CACHE", str(tmp_path / "cache"))
    return SharedFolder(tmp_path / "elsewhere" / "noise-1", "n", "noise", prepared.fingerprint)


def test_the_cache_has_the_copy(shared: SharedFolder, tmp_path: Path) -> None:
    dataset = open_images(shared)
    assert dataset.folder == tmp_path / "cache" / "data" / "noise-1"
    assert (dataset.fingerprint, len(dataset.train)) == (shared.fingerprint, 54)


def test_a_cache_without_room_is_no_obstacle(shared: SharedFolder, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "data").write_text("in the way", encoding="utf-8")
    first, second = open_images(shared), open_images(shared)
    assert first.folder is not None
    assert first.folder.is_relative_to(tmp_path / "tmp")
    assert first.folder == second.folder
    assert np.array_equal(first.train, second.train)


def test_images_that_have_gone_are_told(shared: SharedFolder, tmp_path: Path) -> None:
    (tmp_path / "there" / "noise-1" / "images.npy").unlink()
    with pytest.raises(FileNotFoundError, match="have gone or are damaged; a resume prepares them again"):
        open_images(shared)


def test_pieces_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    path = str(tmp_path / "a")
    assert [read_piece(path, offset) for offset in (0, 7, 10)] == [b"0123456789", b"789", b""]
    assert read_piece(str(tmp_path / "b"), 0) == b""
