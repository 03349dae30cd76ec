"""npz files of users: shapes, labels, hostile files."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from images import noise, write_npz

from pipeline.data.npz_files import npz_source
from pipeline.data.preprocessing import RawImages, SourceRequest
from pipeline.errors import DataError


def read(path: Path, size: int = 0) -> RawImages:
    return npz_source(SourceRequest(f"npz:{path}", path, size, Path("unused"))).read()


@pytest.mark.parametrize(
    "shape", [(70, 12, 12), (70, 12, 12, 1), (70, 12, 12, 3), (70, 12, 20, 3), (70, 20, 12)]
)
def test_npz_shapes(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = noise(shape)
    raw = read(write_npz(tmp_path / "a.npz", images=pixels))
    assert raw.images.shape == (70, 12, 12, shape[3] if len(shape) == 4 else 1)
    assert (raw.labels, raw.names, raw.skipped) == (None, (), 0)
    top, left = (shape[1] - 12) // 2, (shape[2] - 12) // 2
    cropped = pixels[:, top : top + 12, left : left + 12]
    assert np.array_equal(raw.images, cropped.reshape(raw.images.shape))


def test_npz_labels_come_as_they_are(tmp_path: Path) -> None:
    labels = np.array([7, -3, 1000] * 30, np.int16)
    raw = read(write_npz(tmp_path / "a.npz", images=noise((90, 8, 8)), labels=labels))
    assert raw.labels is not None
    assert raw.labels.dtype == np.int64
    assert raw.labels.tolist() == labels.tolist()


def test_npz_resizes_to_the_size_asked(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz", images=np.full((70, 7, 9, 3), 99, np.uint8))
    raw = read(file, size=16)
    assert raw.images.shape == (70, 16, 16, 3)
    assert (raw.images == 99).all()


def test_npz_in_fortran_order_reads_the_same(tmp_path: Path) -> None:
    pixels = noise((70, 8, 8, 3))
    raw = read(write_npz(tmp_path / "f.npz", images=np.asfortranarray(pixels)))
    assert np.array_equal(raw.images, pixels)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": noise((70, 8, 8))}, "no images in the npz.*an array `images`"),
        ({"images": noise((70, 8, 8)).astype(np.float32)}, "`images` is uint8"),
        ({"images": noise((70, 3, 8, 8))}, "`images` is uint8"),
        ({"images": noise((70, 64))}, "`images` is uint8"),
        ({"images": noise((70, 8, 0))}, "`images` is uint8"),
        ({"images": noise((70, 8, 8, 4))}, "`images` is uint8"),
        ({"images": np.array([{"a": 1}] * 70, object)}, "`images` is uint8"),
        ({"images": noise((70, 8, 8)), "labels": np.zeros(69, int)}, "`labels` is integer"),
        ({"images": noise((70, 8, 8)), "labels": np.zeros(70)}, "`labels` is integer"),
        ({"images": noise((70, 8, 8)), "labels": np.array([None] * 70, object)}, "`labels` is integer"),
        ({"images": noise((70, 7, 9))}, "at least 8 pixels"),
    ],
)
def test_bad_npz(arrays: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(write_npz(tmp_path / "bad.npz", **arrays))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x80\x04N.", b"\x93NUMPY\x01\x00"])
def test_damaged_npz(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match="the npz cannot be read.*must be an npz file"):
        read(tmp_path / "a.npz")


def test_npz_is_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "unpickled"),)

    file = write_npz(tmp_path / "a.npz", images=noise((70, 8, 8)), labels=np.array([Bomb()] * 70, object))
    with pytest.raises(DataError, match="`labels` is integer"):
        read(file)
    assert not (tmp_path / "unpickled").exists()


def test_npz_that_claims_terabytes_is_refused_by_its_header(tmp_path: Path) -> None:
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 1024, 1024, 3)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(DataError, match="2929.* GiB .*at most 16 GiB"):
        read(tmp_path / "a.npz")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file .*nowhere.npz"):
        read(tmp_path / "nowhere.npz")
