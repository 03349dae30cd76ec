"""Export of data sets: three layouts, interruption, extension, folders that hold something else."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from pipeline.data.dataset import load_dataset
from pipeline.errors import ConfigError
from pipeline.serving import dataset_export
from pipeline.serving.dataset_export import ExportRequest

STEP = 512


class Source:
    """Images that encode their own index. Raises at image `fails_at`; counts the images it made."""

    classes, size, channels = 3, 8, 1

    def __init__(self, fails_at: int = 10**9) -> None:
        self.fails_at, self.made, self.largest = fails_at, 0, 0

    def stream(
        self, n: int, seed: int = 0, label: int | None = None, batch: int = 256, truncation: float = 1.0,
        *, start: int = 0, balanced: bool = False,
    ) -> Iterator[dataset_export.Chunk]:  # fmt: skip
        assert start % STEP == 0
        for first in range(start, n, batch):
            index = np.arange(first, min(n, first + batch))
            if index[-1] >= self.fails_at:
                raise KeyboardInterrupt
            self.made += len(index)
            self.largest = max(self.largest, len(index))
            images = np.zeros((len(index), 8, 8, 1), np.uint8)
            images[:, 0, 0, 0], images[:, 0, 1, 0] = index % 256, index // 256 + seed
            labels = index % 3 if balanced else (index * 7 % 5 == 0).astype(np.int64)
            yield images, labels


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_export, "_CHUNK_BYTES", 1024 * 64)  # 1024 images of 8x8


def request(n: int = 2500, format: str = "folder", **more: Any) -> ExportRequest:
    return ExportRequest(n=n, format=format, **{"identity": "abc", "class_names": ("a", "..", "c d"), **more})


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_folder(out: Path) -> tuple[np.ndarray, np.ndarray]:
    paths = sorted(out.rglob("*.png"), key=lambda path: path.name)
    assert [path.stem for path in paths] == [f"{i:09d}" for i in range(len(paths))]
    names = {"a": 0, "class-00001": 1, "c d": 2}
    return np.stack([np.asarray(Image.open(path)) for path in paths]), np.array(
        [names[path.parent.name] for path in paths]
    )


def read_npz(out: Path) -> tuple[np.ndarray, np.ndarray]:
    parts = [np.load(path, allow_pickle=False) for path in sorted(out.glob("part-*.npz"))]
    assert [len(part["images"]) for part in parts] == [1024, 1024, 452]
    return np.concatenate([p["images"] for p in parts])[..., 0], np.concatenate([p["labels"] for p in parts])


def read_parquet(out: Path) -> tuple[np.ndarray, np.ndarray]:
    tables = [pyarrow.parquet.read_table(path) for path in sorted(out.glob("part-*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    features = json.loads(tables[0].schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": ["a", "..", "c d"], "_type": "ClassLabel"}
    pictures = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows]
    return np.stack(pictures), np.array([row["label"] for row in rows])


READERS = {"folder": read_folder, "npz": read_npz, "parquet": read_parquet}


@pytest.mark.parametrize("format", READERS)
def test_every_image_is_there_once_with_its_label(format: str, tmp_path: Path) -> None:
    source, progress = Source(), []
    new = dataset_export.export_dataset(
        source, tmp_path / "out", request(format=format), lambda *at: progress.append(at)
    )
    images, labels = READERS[format](tmp_path / "out")
    assert new == len(images) == source.made == 2500
    assert np.array_equal(images[:, 0, 0] + 256 * images[:, 0, 1].astype(int), np.arange(2500))
    assert np.array_equal(labels, np.arange(2500) * 7 % 5 == 0)
    assert source.largest == 1024  # at most one chunk in memory
    assert progress == [(0, 2500), (1024, 2500), (2048, 2500), (2500, 2500)]


@pytest.mark.parametrize("format", READERS)
def test_an_interrupted_export_is_continued_and_a_finished_one_extended(format: str, tmp_path: Path) -> None:
    complete, resumed = tmp_path / "complete", tmp_path / "resumed"
    dataset_export.export_dataset(Source(), complete, request(format=format))
    with pytest.raises(KeyboardInterrupt):
        dataset_export.export_dataset(Source(fails_at=1500), resumed, request(n=1600, format=format))
    assert json.loads((resumed / "dataset.json").read_text())["done"] == 1024
    source = Source()
    assert dataset_export.export_dataset(source, resumed, request(n=1600, format=format)) == 576
    assert source.made == 576
    assert dataset_export.export_dataset(Source(), resumed, request(n=1600, format=format)) == 0
    assert dataset_export.export_dataset(Source(), resumed, request(format=format)) == 900
    assert hashes(resumed) == hashes(complete)


def test_an_exported_folder_can_be_loaded_as_a_data_set(tmp_path: Path) -> None:
    dataset_export.export_dataset(Source(), tmp_path / "out", request(n=600, labels="balanced"))
    dataset = load_dataset(f"folder:{tmp_path / 'out'}")
    assert len(dataset.train) + len(dataset.held) == 600
    assert dataset.classes == ("a", "c d", "class-00001")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "another seed"),
        ({"identity": "other"}, "another identity"),
        ({"format": "npz"}, "another format"),
        ({"labels": "balanced"}, "another labels"),
        ({"n": 2000}, "only grows"),
    ],
)
def test_another_data_set_in_the_same_folder_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    dataset_export.export_dataset(Source(), tmp_path / "out", request(n=2100))
    before = hashes(tmp_path)
    with pytest.raises(ConfigError, match=message):
        dataset_export.export_dataset(Source(), tmp_path / "out", request(**{"n": 2100, **change}))
    assert hashes(tmp_path) == before


@pytest.mark.parametrize("make", [lambda p: p.write_text("x"), lambda p: (p.mkdir(), (p / "a").touch())])
def test_a_folder_with_something_else_is_not_changed(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "out")
    with pytest.raises(ConfigError, match="is not empty"):
        dataset_export.export_dataset(Source(), tmp_path / "out", request())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "-n 0 is out of range"),
        ({"n": -5}, "-n -5 is out of range"),
        ({"n": 10**12}, "-n 1000000000000 is out of range"),
        ({"format": "zip"}, "--format zip is unknown"),
        ({"labels": "even"}, "--labels even is unknown"),
        ({"labels": "balanced", "label": 1}, "both given"),
    ],
)
def test_an_impossible_request_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        request(**change)


@pytest.mark.parametrize("labelled", [True, False])
def test_one_npz_is_streamed(labelled: bool, tmp_path: Path) -> None:
    chunks = Source().stream(700, batch=100)
    given = ((images, labels if labelled else None) for images, labels in chunks)
    dataset_export.write_npz(tmp_path / "out.npz", given, (700, 8, 8, 1))
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert set(arrays) == ({"images", "labels"} if labelled else {"images"})
        assert arrays["images"].shape == (700, 8, 8, 1)
        assert np.array_equal(arrays["images"][:, 0, 0, 0], np.arange(700) % 256)
        assert not labelled or arrays["labels"].dtype == np.int64
