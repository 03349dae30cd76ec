"""What real users' images looked like, case by case, and what is right: counts, classes, range, split.

The cases come from public bug reports of image tools; each makes its files anew, as they were described
there.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from sklearn.datasets import load_digits

from pipeline.data.dataset import Dataset, load_dataset
from pipeline.data.description import class_counts
from pipeline.data.options import DataOptions
from pipeline.metrics import memorization
from pipeline.metrics.memorization import pixel_vectors

BUNCH = load_digits()
DIGITS = np.rint(BUNCH.images * (255 / 16)).astype(np.uint8).repeat(4, 1).repeat(4, 2)  # (1797, 32, 32)
LABELS = BUNCH.target


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]


def photo(seed: int) -> np.ndarray:
    """A colour picture unlike any other."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
    return np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC))


def notes(dataset: Dataset) -> str:
    return "\n".join(dataset.understood.notes)


def total(dataset: Dataset) -> int:
    return len(dataset.train) + len(dataset.held)


@pytest.mark.parametrize("held", [("val", "test"), ("valid", "testing"), ("Validation", "TEST")])
def test_b1_split_already(held: tuple[str, str], tmp_path: Path) -> None:
    for part, first, last in (("train", 0, 240), (held[0], 240, 270), (held[1], 270, 300)):
        for i in range(first, last):
            save(tmp_path / part / f"digit-{LABELS[i]}" / f"{i}.png", DIGITS[i])
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.classes == tuple(f"digit-{k}" for k in range(10))
    assert (len(dataset.train), len(dataset.held)) == (240, 60)
    assert held[0] in notes(dataset)
    assert "--split merge" in notes(dataset)
    merged = load_dataset(f"folder:{tmp_path}", DataOptions(split="merge"))
    assert (total(merged), len(merged.held)) == (300, 30)


def test_b2_numbered_classes(tmp_path: Path) -> None:
    """Class k is brighter by 10 k: label k is class k."""
    for i in range(240):
        bright = np.clip(DIGITS[i].astype(int) // 2 + 10 * (i % 12), 0, 255).astype(np.uint8)
        save(tmp_path / str(i % 12) / f"{i}.png", bright)
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.classes == tuple(map(str, range(12)))
    assert dataset.train_labels is not None
    darkest = [int(dataset.train[dataset.train_labels == k].min()) for k in range(12)]
    assert darkest == [10 * k for k in range(12)]


def test_b3_a_stray_image(tmp_path: Path) -> None:
    for i in range(300):
        save(tmp_path / str(LABELS[i]) / f"{i}.png", DIGITS[i])
    save(tmp_path / "cover.png", DIGITS[999])
    dataset = load_dataset(f"folder:{tmp_path}")
    assert (len(dataset.classes), total(dataset)) == (10, 300)
    assert sum(dataset.understood.left_out.values()) == 1
    assert "cover.png" in dataset.understood.describe_left_out()


@pytest.mark.parametrize("times", [1, 2, 3])
def test_b4_duplicates(times: int, tmp_path: Path) -> None:
    file = tmp_path / "set.npz"
    np.savez(file, images=np.concatenate([DIGITS] * times), labels=np.concatenate([LABELS] * times))
    dataset = load_dataset(f"npz:{file}")
    assert (dataset.understood.exact, dataset.understood.across) == ((times - 1) * 1797, 0)
    parts = [{image.tobytes() for image in part} for part in (dataset.train, dataset.held)]
    assert not parts[0] & parts[1]
    assert 0.08 < len(dataset.held) / total(dataset) < 0.12

    def verdict(samples: np.ndarray) -> str:
        vectors = [
            pixel_vectors(load_tensor(part)).float() for part in (samples, dataset.train, dataset.held)
        ]
        return memorization.find_copies(load_tensor(samples), vectors[0], dataset, *vectors[1:])[
            0
        ].memorisation

    assert verdict(DIGITS[:600, ..., None]) == "copies"
    # Halves of two digits: as near to the training images as the held-out ones are, not nearer.
    honest = np.concatenate([DIGITS[:600, :, :16], DIGITS[600:1200, :, 16:]], 2)[..., None]
    assert verdict(honest) == "ok"


def load_tensor(images: np.ndarray):  # type: ignore[no-untyped-def]
    import torch

    return torch.from_numpy(np.ascontiguousarray(images))


@pytest.mark.parametrize("top", [1000, 4080, 65535])
def test_b5_greys_of_more_than_8_bits(top: int, tmp_path: Path) -> None:
    for i in range(100):
        save(tmp_path / f"{i}.png", (DIGITS[i].astype(np.uint32) * top // 255).astype(np.uint16))
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.understood.value_range == (0, 255)
    assert f"0..{top}" in notes(dataset)


def test_b6_exif_that_cannot_be_written_back(tmp_path: Path) -> None:
    entries = [struct.pack("<HHII", 0x0112, 3, 1, 6), struct.pack("<HHII", 0x011A, 10, 1, 62)]
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2)
    exif = head + b"".join(entries) + struct.pack("<I", 0) + struct.pack("<ii", -1, 1)
    upper = np.zeros((32, 32, 3), np.uint8)
    upper[:8] = 255  # as stored; turned to the right where the EXIF says so
    for i in range(100):
        array = (upper * (0.5 + i / 200)).astype(np.uint8)
        save(tmp_path / f"{i:03}.jpg", array, quality=95, **({"exif": exif} if i < 30 else {}))
    dataset = load_dataset(f"folder:{tmp_path}")
    images = np.concatenate([dataset.train, dataset.held])
    turned = images[:, 16:, 28].mean((1, 2)) > 60  # bright at the right
    assert (total(dataset), int(turned.sum())) == (100, 30)


@pytest.mark.parametrize("compressed", [True, False])
def test_b7_much_text_in_a_png(compressed: bool, tmp_path: Path) -> None:
    for i in range(100):
        info = PngImagePlugin.PngInfo()
        if i < 30:
            info.add_text("workflow", "x" * 2_000_000, zip=compressed)
        save(tmp_path / f"{i}.png", photo(i), pnginfo=info)
    assert total(load_dataset(f"folder:{tmp_path}")) == 100


@pytest.mark.parametrize("name", ["@eaDir", ".thumbnails", "__MACOSX", ".@__thumb"])
def test_b8_thumbnails_of_a_nas(name: str, tmp_path: Path) -> None:
    for i in range(80):
        folder = tmp_path / ("cats" if i < 40 else "dogs")
        save(folder / f"{i}.png", DIGITS[i])
        save(folder / name / f"{i}.png" / "SYNOPHOTO_THUMB_M.jpg", DIGITS[i][::2, ::2])
    for i in range(20):
        save(tmp_path / name / f"{i}.png", DIGITS[300 + i])
    dataset = load_dataset(f"folder:{tmp_path}")
    assert class_counts(dataset) == {"cats": 40, "dogs": 40}
    assert sum(dataset.understood.left_out.values()) == 100


COLOUR = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "images", "channels", "classes"),
    [
        ({"images": DIGITS[:300], "labels": LABELS[:300, None]}, 300, 1, 10),
        ({"images": COLOUR.transpose(0, 3, 1, 2)}, 300, 3, 0),
        (
            {
                "train_images": DIGITS[:300],
                "train_labels": LABELS[:300, None],
                "val_images": DIGITS[300:350],
                "val_labels": LABELS[300:350, None],
            },
            350,
            1,
            10,
        ),
        ({"arr_0": COLOUR, "arr_1": np.arange(300) % 4}, 300, 3, 4),
    ],
)
def test_b9_npz_of_others(
    arrays: dict[str, np.ndarray], images: int, channels: int, classes: int, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    dataset = load_dataset(f"npz:{tmp_path / 'a.npz'}")
    assert (total(dataset), dataset.channels, len(dataset.classes)) == (images, channels, classes)


def test_b10_grey_saved_as_rgb(tmp_path: Path) -> None:
    """The samples' side of this case is in test_external_samples.py."""
    for i in range(100):
        save(tmp_path / "rgb" / f"{i:03}.png", DIGITS[i][..., None].repeat(3, 2))
        save(tmp_path / "grey" / f"{i:03}.png", DIGITS[i])
    rgb, grey = (load_dataset(f"folder:{tmp_path / name}") for name in ("rgb", "grey"))
    assert rgb.fingerprint == grey.fingerprint


@pytest.mark.parametrize("lost", [2, 40])
def test_b11_no_end_marker(lost: int, tmp_path: Path) -> None:
    for i in range(100):
        written = io.BytesIO()
        big = Image.fromarray(photo(i)).resize((128, 128))
        big.save(written, "JPEG", quality=95)
        (tmp_path / f"{i}.jpg").write_bytes(written.getvalue()[:-lost])
    dataset = load_dataset(f"folder:{tmp_path}")
    assert total(dataset) == 100
    assert "end too early" in notes(dataset)


@pytest.mark.parametrize(("side", "chosen"), [(100, 64), (70, 64), (500, 256), (20, 16)])
def test_b12_sizes(side: int, chosen: int, tmp_path: Path) -> None:
    for i in range(64):
        Image.fromarray(photo(i)).resize((side, side)).save(tmp_path / f"{i}.png")
    dataset = load_dataset(f"folder:{tmp_path}")
    assert dataset.size == chosen
    assert f"{side}x{side} prepared at {chosen}x{chosen}; --image-size changes it" in notes(dataset)


@pytest.mark.parametrize("make", [test_b1_split_already, test_b3_a_stray_image])
def test_a_zip_is_understood_as_its_folder(make: Callable[..., None], tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "made"
    root.mkdir()
    make(("val", "test"), root) if make is test_b1_split_already else make(root)
    packed = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "made")
    by_folder, by_zip = load_dataset(f"folder:{root}"), load_dataset(f"zip:{packed}")
    assert by_folder.fingerprint == by_zip.fingerprint
    assert by_folder.classes == by_zip.classes
    assert by_folder.understood.left_out == by_zip.understood.left_out
