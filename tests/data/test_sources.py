"""Named sources: sets inside packages, torchvision's sets from local files."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from images import noise

from pipeline.data.dataset import Dataset, load_dataset
from pipeline.data.preprocessing import Labels, Pixels
from pipeline.data.sources import TORCHVISION_SETS, _to_nhwc
from pipeline.errors import DataError


def all_images(dataset: Dataset) -> list[bytes]:
    return sorted(image.tobytes() for part in (dataset.train, dataset.held) for image in part)


def test_mnist5k_is_5000_real_digits(digits: Dataset) -> None:
    assert digits.train.shape == (4500, 28, 28, 1)
    assert digits.held.shape == (500, 28, 28, 1)
    assert digits.train.dtype == np.uint8
    assert (digits.size, digits.channels, digits.labelled, digits.skipped) == (28, 1, True, 0)
    assert digits.classes == tuple("0123456789")
    assert digits.train.max() == 255
    assert digits.held_labels is not None
    assert np.bincount(digits.held_labels).tolist() == [50] * 10
    # Ones use least ink, zeros most: pixels and labels belong together.
    ink = [digits.train[digits.train_labels == k].mean() for k in range(10)]
    assert (int(np.argmin(ink)), int(np.argmax(ink))) == (1, 0)


def test_digits_fill_the_range() -> None:
    dataset = load_dataset("digits")
    assert (dataset.size, dataset.channels, len(dataset.classes)) == (8, 1, 10)
    assert len(dataset.train) + len(dataset.held) == 1797
    assert set(np.unique(dataset.train)) <= {round(v * 255 / 16) for v in range(17)}
    assert dataset.train.max() == 255


def test_image_size_applies_to_every_source() -> None:
    assert load_dataset("digits", image_size=16).train.shape[1:] == (16, 16, 1)


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("mnst", "'mnist'"),
        ("cifar", "'cifar10'"),
        ("", "valid names"),
        ("folder:", "folder:PATH"),
        ("x:y", "valid"),
    ],
)
def test_unknown_source_names_a_valid_one(source: str, hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        load_dataset(source)


def test_bare_path_is_told_its_prefix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"did you mean 'folder:{tmp_path}'"):
        load_dataset(str(tmp_path))


def write_idx(raw: Path, images: Pixels, labels: Labels) -> None:
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        sizes = struct.pack(">IIII", 2051, *images.shape[:3])
        (raw / f"{part}-images-idx3-ubyte").write_bytes(sizes + images.tobytes())
        head = struct.pack(">II", 2049, len(labels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())


@pytest.mark.parametrize(("source", "folder"), [("mnist", "MNIST"), ("kmnist", "KMNIST")])
def test_named_set_from_local_files(source: str, folder: str, digits: Dataset, tmp_path: Path) -> None:
    assert digits.train_labels is not None
    write_idx(tmp_path / "down" / folder / "raw", digits.train[::11], digits.train_labels[::11])
    dataset = load_dataset(source, download=tmp_path / "down")
    assert all_images(dataset) == sorted(image.tobytes() for image in digits.train[::11])
    assert len(dataset.classes) == len(np.unique(digits.train_labels[::11]))
    for image, label in zip(dataset.held[:20], dataset.held_labels[:20], strict=True):  # type: ignore[index]
        twin = next(i for i in range(4500) if np.array_equal(digits.train[i], image))
        assert digits.train_labels[twin] == label


def test_named_set_offline_says_where_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket, "setdefaulttimeout", lambda seconds: None)
    with pytest.raises(DataError) as caught:
        load_dataset("cifar10")
    assert str(tmp_path / "cache" / "downloads" / "cifar-10-python.tar.gz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_named_set_is_a_user_error(tmp_path: Path) -> None:
    write_idx(tmp_path / "down" / "MNIST" / "raw", noise((80, 28, 28, 1)), np.arange(80) % 10)
    (tmp_path / "down" / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"oops")
    with pytest.raises(DataError, match="mnist cannot be read.*torchvision downloads it"):
        load_dataset("mnist", download=tmp_path / "down")


@pytest.mark.parametrize(
    ("source", "shape", "expected"),
    [
        ("mnist", (5, 6, 7), (5, 6, 7, 1)),
        ("emnist", (5, 6, 7), (5, 7, 6, 1)),
        ("svhn", (5, 3, 8, 8), (5, 8, 8, 3)),
        ("cifar10", (5, 8, 8, 3), (5, 8, 8, 3)),
    ],
)
def test_layouts_of_named_sets(source: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert _to_nhwc(source, noise(shape)).shape == expected


def test_every_named_set_exists_in_torchvision() -> None:
    import torchvision.datasets

    assert all(hasattr(torchvision.datasets, entry.class_name) for entry in TORCHVISION_SETS.values())
