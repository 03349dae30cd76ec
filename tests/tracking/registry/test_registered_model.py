"""A packed generator as it is read, checked and sampled."""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from registry_store import TinyGenerator

from pipeline.errors import RegistryError
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.registered_model import BLOCK, PackedGeneratorError, check_archive


@pytest.mark.parametrize("classes", [0, 3])
def test_a_packed_generator_samples_as_the_module(packing: Callable[..., Path], classes: int) -> None:
    generator = LoadedGenerator(packing(classes))
    images, labels = generator.sample(BLOCK, seed=5)
    random = np.random.default_rng([5, 0])
    z = torch.from_numpy(random.standard_normal((BLOCK, 6), dtype=np.float32))
    with torch.no_grad():
        expected = TinyGenerator(classes, 0).eval()(z, None if labels is None else torch.from_numpy(labels))
    assert images.dtype == np.uint8
    assert images.shape == (BLOCK, 8, 8, 2)
    assert np.array_equal(images, (expected * 127.5 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())
    assert (labels is None) == (classes == 0)
    if labels is not None:
        assert labels.dtype == np.int64
        assert set(labels) == {0, 1, 2}


@pytest.mark.parametrize("batch", [1, 7, BLOCK, 50, 200])
def test_an_image_depends_on_neither_n_nor_batch(packing: Callable[..., Path], batch: int) -> None:
    generator = LoadedGenerator(packing())
    images, labels = generator.sample(101, seed=3)
    parts = list(generator.stream(101, seed=3, batch=batch))
    assert [len(part) for part, _ in parts] == [batch] * (101 // batch) + [101 % batch] * (101 % batch > 0)
    assert np.array_equal(np.concatenate([part for part, _ in parts]), images)
    assert labels is not None
    assert np.array_equal(np.concatenate([part_labels for _, part_labels in parts]), labels)
    few, _ = generator.sample(5, seed=3)
    assert np.array_equal(few, images[:5])
    assert len(np.unique(images, axis=0)) == 101


def test_seed_label_and_truncation_change_the_images(packing: Callable[..., Path]) -> None:
    generator = LoadedGenerator(packing())
    plain, _ = generator.sample(4)
    assert not np.array_equal(plain, generator.sample(4, seed=1)[0])
    assert not np.array_equal(plain, generator.sample(4, truncation=0.5)[0])
    images, labels = generator.sample(4, label=2)
    assert labels is not None
    assert labels.tolist() == [2] * 4
    assert not np.array_equal(images, generator.sample(4, label=1)[0])


@pytest.mark.parametrize(
    ("classes", "arguments", "message"),
    [
        (3, {"n": 0}, "n = 0 .*at least 1"),
        (3, {"n": 1, "seed": -1}, "seed = -1 .*seed lies in"),
        (3, {"n": 1, "label": 3}, r"label = 3 .*label lies in \[0, 2\]"),
        (3, {"n": 1, "label": -1}, r"label = -1 .*label lies in \[0, 2\]"),
        (0, {"n": 1, "label": 0}, "label 0 was given for an unconditional model"),
        (3, {"n": 1, "truncation": 0.0}, "truncation"),
        (3, {"n": 1, "truncation": math.nan}, "truncation"),
        (3, {"n": 1, "truncation": 2.1}, "truncation"),
    ],
)
def test_an_impossible_argumentsis_refused_at_once(
    packing: Callable[..., Path], classes: int, arguments: dict[str, Any], message: str
) -> None:
    generator = LoadedGenerator(packing(classes))
    with pytest.raises(RegistryError, match=message):
        generator.sample(**arguments)
    if "truncation" not in arguments:
        with pytest.raises(RegistryError, match=message):
            generator.stream(**arguments)  # raises before the first image


@pytest.mark.parametrize("name", ["generator.pt2", "generator.safetensors", "facts.json", "files.json"])
def test_an_altered_or_missing_file_is_refused(
    packing: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(packing(), tmp_path / "generator")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(RegistryError):
        LoadedGenerator(folder)
    (folder / name).unlink()
    with pytest.raises(RegistryError):
        LoadedGenerator(folder)


def rewrite(archive: Path, change: Callable[[str, bytes], bytes], extra: dict[str, bytes]) -> None:
    """Write the archive again with changed and additional records."""
    with zipfile.ZipFile(archive) as opened:
        records = {info.filename: opened.read(info) for info in opened.infolist()}
    root = next(iter(records)).partition("/")[0]
    with zipfile.ZipFile(archive, "w") as opened:
        for name, data in records.items():
            opened.writestr(name, change(name, data))
        for name, data in extra.items():
            opened.writestr(f"{root}/{name}", data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"use_pickle": false', b'"use_pickle": true'),
        (b"Symbol('s", b"__import__('os')('s"),
        (b"torch.ops.aten.tanh.default", b"torch.ops.prim.tanh.default"),
    ],
)
def test_an_archive_that_could_run_code_is_not_loaded(
    packing: Callable[..., Path], tmp_path: Path, old: bytes, new: bytes
) -> None:
    archive = Path(shutil.copy(packing() / "generator.pt2", tmp_path))
    check_archive(archive)
    found = []

    def change(name: str, data: bytes) -> bytes:
        found.append(old in data)
        return data.replace(old, new)

    rewrite(archive, change, {})
    assert any(found)
    with pytest.raises(PackedGeneratorError, match="nothing that could run"):
        check_archive(archive)


@pytest.mark.parametrize(
    "name", ["data/weights/model.pt", "data/sample_inputs/other.pt", "data/aotinductor/model/a.so", "extra/x"]
)
def test_an_archive_with_an_unknown_record_is_not_loaded(
    packing: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    archive = Path(shutil.copy(packing() / "generator.pt2", tmp_path))
    rewrite(archive, lambda _, data: data, {name: b"payload"})
    with pytest.raises(PackedGeneratorError, match=name.replace(".", r"\.")):
        check_archive(archive)
