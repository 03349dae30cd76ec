"""From a source to a data set: labels, fingerprint, held-out split, cache; the sampler."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from images import noise, write_folder, write_npz
from PIL import Image

from pipeline.data.dataset import Dataset, Sampler, load_dataset, to_float
from pipeline.data.options import DataOptions
from pipeline.data.preparing import prepared_cache
from pipeline.data.preparing.prepared import fingerprint
from pipeline.errors import DataError


def all_images(dataset: Dataset) -> list[bytes]:
    return sorted(image.tobytes() for part in (dataset.train, dataset.held) for image in part)


def same(a: Dataset, b: Dataset) -> bool:
    return a.fingerprint == b.fingerprint and np.array_equal(a.train, b.train) and a.classes == b.classes


@pytest.mark.parametrize("size", [-1, 7, 5000])
def test_image_size_out_of_bounds(size: int) -> None:
    with pytest.raises(DataError, match=f"image_size={size} is out of range"):
        load_dataset("digits", DataOptions(size=size))


def test_npz_labels_become_0_to_k(tmp_path: Path) -> None:
    pixels, labels = noise((90, 8, 8)), np.array([7, -3, 1000] * 30, np.int16)
    dataset = load_dataset(f"npz:{write_npz(tmp_path / 'a.npz', images=pixels, labels=labels)}")
    assert dataset.classes == ("-3", "7", "1000")
    assert dataset.train_labels is not None
    assert dataset.train_labels.dtype == np.int64
    for image, label in zip(dataset.train, dataset.train_labels, strict=True):
        i = next(i for i in range(90) if np.array_equal(pixels[i], image[..., 0]))
        assert dataset.classes[label] == str(labels[i])


def test_single_class_is_no_label(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz", images=noise((64, 8, 8)), labels=np.ones(64, int))
    assert not load_dataset(f"npz:{file}").labelled


def test_folder_of_classes(digits: Dataset, tmp_path: Path) -> None:
    assert digits.train_labels is not None
    root = write_folder(tmp_path / "in", digits.train[::20], digits.train_labels[::20])
    dataset = load_dataset(f"folder:{root}")
    assert all_images(dataset) == sorted(image.tobytes() for image in digits.train[::20])
    assert (dataset.size, dataset.channels) == (28, 1)
    assert dataset.classes == tuple(f"class{k}" for k in range(10) if k in digits.train_labels[::20])
    assert dataset.train_labels is not None
    image, label = dataset.train[0], dataset.train_labels[0]
    twin = next(i for i in range(4500) if np.array_equal(digits.train[i], image))
    assert dataset.classes[label] == f"class{digits.train_labels[twin]}"


@pytest.mark.parametrize("where", ["npz", "folder"])
def test_too_few_usable_images(where: str, tmp_path: Path) -> None:
    if where == "npz":
        source = f"npz:{write_npz(tmp_path / 'a.npz', images=noise((63, 8, 8)))}"
    else:
        source = f"folder:{write_folder(tmp_path / 'in', noise((64, 8, 8, 1)))}"
        (tmp_path / "in" / "0000.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match="too few images: 63 "):
        load_dataset(source)


def test_unreadable_images_are_counted_from_the_cache_too(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", noise((80, 8, 8, 1)))
    (root / "0003.png").write_bytes(b"damaged")
    found = [load_dataset(f"folder:{root}").understood for _ in range(2)]
    assert found[0].left_out == {"text, not an image": 1}
    assert found[0] == found[1]


def test_same_images_same_fingerprint_whatever_the_source(tmp_path: Path) -> None:
    images, labels = noise((80, 8, 8, 3)), np.sort(np.arange(80) % 4)
    first = load_dataset(f"folder:{write_folder(tmp_path / 'one', images, labels)}")
    second = load_dataset(f"folder:{write_folder(tmp_path / 'two' / 'deep', images, labels)}")
    third = load_dataset(f"npz:{write_npz(tmp_path / 'a.npz', images=images, labels=labels)}")
    assert first.fingerprint == second.fingerprint == third.fingerprint
    assert len(first.fingerprint) == 16


def test_fingerprint_sees_pixels_labels_and_split() -> None:
    images, labels = noise((80, 8, 8, 1)), np.arange(80) % 4
    changed = images.copy()
    changed[3, 4, 5] ^= 1
    marks = {
        fingerprint(images[:70], images[70:], labels[:70], labels[70:]),
        fingerprint(images[:70], images[70:], None, None),
        fingerprint(images[:70], images[70:], labels[:70][::-1], labels[70:]),
        fingerprint(images[:69], images[69:], labels[:69], labels[69:]),
        fingerprint(changed[:70], changed[70:], labels[:70], labels[70:]),
        fingerprint(images[:70].reshape(70, 4, 16, 1), images[70:], labels[:70], labels[70:]),
    }
    assert len(marks) == 6


def test_mnist5k_fingerprint_never_changes(digits: Dataset) -> None:
    assert digits.fingerprint == "66927c55c453086c"


def test_a_prefix_is_a_fair_sample(digits: Dataset) -> None:
    assert digits.train_labels is not None
    assert np.bincount(digits.train_labels[:500], minlength=10).min() > 25


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in", noise((70, 8, 8, 1)), np.arange(70) % 3)


def cached(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache" / "data").iterdir() if not path.is_symlink())


def test_second_load_reads_the_cache(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_dataset(f"folder:{source}")
    monkeypatch.setattr(
        "pipeline.data.sources.image_files.look_at", lambda *args: pytest.fail("opened again")
    )
    second = load_dataset(f"folder:{source}")
    assert same(first, second)
    assert first.held_labels is not None
    assert second.held_labels is not None
    assert np.array_equal(first.held_labels, second.held_labels)
    assert len(cached(tmp_path)) == 1  # and no temporary folder left behind
    sized = load_dataset(f"folder:{source}", DataOptions(size=8))  # what was chosen, asked for
    assert same(first, sized)


@pytest.mark.parametrize("change", ["touch", "add", "size"])
def test_what_changes_the_answer_changes_the_key(change: str, source: Path, tmp_path: Path) -> None:
    load_dataset(f"folder:{source}")
    if change == "touch":
        os.utime(source / "class0" / "0000.png", ns=(1, 1))
    if change == "add":
        Image.fromarray(noise((8, 8))).save(source / "class0" / "new.png")
    load_dataset(f"folder:{source}", DataOptions(size=9 if change == "size" else 0))
    assert len(cached(tmp_path)) == 2


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "meta.json"])
@pytest.mark.parametrize("how", ["cut", "flip", "empty", "gone"])
def test_damaged_cache_is_prepared_again(
    how: str, file: str, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    first = load_dataset(f"folder:{source}")
    (folder,) = cached(tmp_path)
    whole = (folder / file).read_bytes()
    middle = len(whole) - 200
    (folder / file).unlink()
    if how != "gone":
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        (folder / file).write_bytes({"cut": whole[: len(whole) // 2], "flip": flipped, "empty": b""}[how])
    again = load_dataset(f"folder:{source}")
    assert same(first, again)
    assert np.array_equal(first.train_labels, again.train_labels)  # type: ignore[arg-type]
    if how != "gone" and (how, file) != ("flip", "meta.json"):
        assert any("cannot be used" in text for text in caplog.messages)
    caplog.clear()
    assert same(first, load_dataset(f"folder:{source}"))


def test_cache_is_never_unpickled(source: Path, tmp_path: Path) -> None:
    first = load_dataset(f"folder:{source}")
    (folder,) = cached(tmp_path)
    (folder / "images.npy").unlink()  # it is mapped
    np.save(folder / "images.npy", np.array([{"not": "pixels"}] * 70, object), allow_pickle=True)
    assert same(first, load_dataset(f"folder:{source}"))


def test_what_a_killed_process_left_is_removed(source: Path, tmp_path: Path) -> None:
    load_dataset(f"folder:{source}")
    (folder,) = cached(tmp_path)
    partial = folder.rename(folder.with_name(f".{folder.name}.partial"))
    (partial / "meta.json").unlink()
    load_dataset(f"folder:{source}")
    assert cached(tmp_path) == [folder]


def test_images_without_room_on_the_disk_stay_in_memory(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    dataset = load_dataset(f"folder:{source}")
    assert (dataset.folder, len(dataset.train) + len(dataset.held)) == (None, 70)
    monkeypatch.setattr(prepared_cache, "memory_bytes", lambda: 1000)
    with pytest.raises(DataError, match=r"cannot be prepared in .*No space left .*GANSWEEP_CACHE"):
        load_dataset(f"folder:{source}")


def test_unwritable_cache_only_costs_time(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    (tmp_path / "file").write_text("in the way")
    dataset = load_dataset(f"folder:{source}", cache=tmp_path / "file")
    assert len(dataset.train) > 0
    assert any("not cached" in text for text in caplog.messages)


def test_two_at_a_time_agree(source: Path, tmp_path: Path) -> None:
    found: list[Dataset] = []
    threads = [
        threading.Thread(target=lambda: found.append(load_dataset(f"folder:{source}"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({dataset.fingerprint for dataset in found}) == 1
    assert len(found) == 3
    assert len(cached(tmp_path)) == 1


@pytest.mark.parametrize(("n", "batch"), [(10, 3), (7, 20), (1, 5), (100, 100)])
def test_sampler_restarts_anywhere(n: int, batch: int) -> None:
    whole = Sampler(n, seed=5).take(0, 12 * batch)
    unbroken = Sampler(n, seed=5)
    for step in range(12):
        part = slice(step * batch, (step + 1) * batch)
        assert np.array_equal(unbroken.take(part.start, batch), whole[part])
        assert np.array_equal(Sampler(n, seed=5).take(part.start, batch), whole[part])
    assert whole.dtype == np.int64


def test_sampler_shows_each_image_once_per_epoch() -> None:
    epochs = Sampler(50, seed=0).take(0, 150).reshape(3, 50)
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], Sampler(50, seed=1).take(0, 50))


def test_sampler_refuses_nonsense() -> None:
    assert Sampler(3, 0).take(2, 0).shape == (0,)
    with pytest.raises(ValueError, match="n=0 seed=0 is out of range"):
        Sampler(0, 0)
    with pytest.raises(ValueError, match="position -1 .* is negative"):
        Sampler(3, 0).take(-1, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_to_float(channels: int) -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(channels).reshape(-1, 8, 8, channels)
    got = to_float(images)
    assert (got.dtype, got.shape) == (torch.float32, (images.shape[0], channels, 8, 8))
    assert (got.min().item(), got.max().item()) == (-1.0, 1.0)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal((got * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1), images)
