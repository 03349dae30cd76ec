"""Samples of other tools: read exactly as they are, or refused with one line."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import external_samples
from pipeline.errors import DataError


def noise(n=20, size=8, channels=1, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


def folder(root: Path, images: np.ndarray, mode: str = "") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        (picture.convert(mode) if mode else picture).save(root / f"{i:05}.png")
    return root


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_pngs_are_read_as_they_are(tmp_path: Path, channels: int) -> None:
    images = noise(channels=channels)
    found, labels = external_samples.read_samples(folder(tmp_path / "a", images), 8, channels)
    assert np.array_equal(found, images)
    assert labels is None


def test_sub_folders_count(tmp_path: Path) -> None:
    images = noise()
    folder(tmp_path / "a" / "x", images[:10])
    folder(tmp_path / "a" / "y", images[10:])
    (tmp_path / "a" / "x" / "dataset.json").write_text(
        json.dumps({"dataset": 1, "identity": "", "portion": 1, "done": 10}, indent=1)
    )  # `gansweep sample` made them
    assert np.array_equal(external_samples.read_samples(tmp_path / "a", 8, 1)[0], images)


@pytest.mark.parametrize("key", ["images", "arr_0"])
def test_an_npz_is_read(tmp_path: Path, key: str) -> None:
    images, labels = noise(), np.arange(20) % 3
    found, found_labels = external_samples.read_samples(
        npz(tmp_path / "a.npz", **{key: images, "labels": labels}), 8, 1
    )
    assert np.array_equal(found, images)
    assert found_labels is not None
    assert np.array_equal(found_labels, labels)
    flat, none = external_samples.read_samples(npz(tmp_path / "b.npz", images=images[..., 0]), 8, 1)
    assert np.array_equal(flat, images)
    assert none is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": noise(size=9)}, r"uint8 \(20, 9, 9, 1\).*8x8"),
        ({"images": noise(channels=3)}, r"8, 3\).*grey"),
        ({"images": noise().astype(np.float32)}, "float32"),
        ({"images": np.full((20, 8, 8, 1), np.nan)}, "float64"),
        ({"pictures": noise()}, "no images.*pictures.*array `images`"),
        ({"images": np.full((20, 8, 8, 1), 7, np.uint8)}, "20 times the same.*differ from one another"),
        ({"images": noise(), "labels": np.zeros(3, int)}, r"`labels` is int64 \(3,\).*integer \(20,\)"),
        ({"images": np.array([{}] * 3, object)}, "object"),
        ({"images": noise(0)}, "0 times the same"),
    ],
)
def test_another_npz_is_refused(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        external_samples.read_samples(npz(tmp_path / "a.npz", **arrays), 8, 1)


@pytest.mark.parametrize(
    ("images", "mode", "message"),
    [
        (noise(size=9), "", "9x9 L .*8x8"),
        (noise(channels=3), "", "8x8 RGB .*grey"),
        (noise(), "LA", "8x8 LA"),
        (noise(), "P", "8x8 P "),
        (noise(1).repeat(5, 0), "", "5 times the same image"),
    ],
)
def test_other_pngs_are_refused(tmp_path: Path, images: np.ndarray, mode: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        external_samples.read_samples(folder(tmp_path / "a", images, mode), 8, 1)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere .*folder of PNGs or an npz"):
        external_samples.read_samples(tmp_path / "nowhere", 8, 1)
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no PNGs: no file"):
        external_samples.read_samples(tmp_path / "a", 8, 1)
    (tmp_path / "a" / "x.jpg").touch()
    with pytest.raises(DataError, match=r"no PNGs: \.jpg.*losses"):
        external_samples.read_samples(tmp_path / "a", 8, 1)
    (tmp_path / "a" / "x.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a sample cannot be read.*x\.png"):
        external_samples.read_samples(tmp_path / "a", 8, 1)
    (tmp_path / "b.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="the npz cannot be read"):
        external_samples.read_samples(tmp_path / "b.npz", 8, 1)


def test_a_small_file_that_claims_terabytes_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**11, 8, 8, 1)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(DataError, match="at most 16 GiB"):
        external_samples.read_samples(tmp_path / "a.npz", 8, 1)
