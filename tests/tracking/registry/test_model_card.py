"""The model card: pictures and numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from factories import generator_of, record
from PIL import Image

from pipeline.data.dataset import Dataset
from pipeline.metrics.measurement import METRICS
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import ModelMetadata
from pipeline.tracking.registry.model_card import save_curves, write_card
from pipeline.tracking.registry.pack import pack_generator


@pytest.mark.parametrize("count", [0, 3])
def test_a_card_has_pictures_and_numbers(count: int, tmp_path: Path, dataset: Dataset) -> None:
    metadata = ModelMetadata(fid=3.25, balance=0.5, params={"lr_g": 1e-3}, others={"diversity": 0.5})
    packed = pack_generator(generator_of(), tmp_path, metadata)
    rows = [(5, 9.0, 0.5), (10, None, 0.5), (15, 7.0, math.nan)]  # kimg, fid, balance
    records = [record(kimg, fid, balance=balance, auc=0.7) for kimg, fid, balance in rows[:count]]
    folder = write_card(packed, LoadedGenerator(packed), dataset, records, name="blobs")
    text = (folder / "README.md").read_text()
    assert "| fid | 3.25 |" in text
    assert "lr_g=0.001" in text
    assert f"| diversity | 0.5 | {METRICS['diversity'].meaning} |" in text  # of samples, not of a tick
    assert r"1 - \|2 AUC - 1\|" in text
    sizes = {path.name: Image.open(path).size for path in folder.glob("*.png")}
    assert sizes == {
        "samples.png": (64, 64),
        "real_and_generated.png": (132, 64),
        "neighbours.png": (96, 24),
        "fid.png": (640, 360),
        "balance.png": (640, 360),
    }
    assert all(f"({name})" in text for name in sizes)
    assert {path.name for path in folder.glob("*.webp")} == {"walk_latents.webp", "walk_classes.webp"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert len(metrics["records"]) == count
    assert (
        ModelMetadata.from_json(metrics["facts"]) == LoadedGenerator(packed).metadata
    )  # the card is not among the files that are checked


def picture_of(path: Path, *points: tuple[float, float]) -> np.ndarray:
    save_curves(path, {"fid": points}, highest=2.0)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_curve_is_drawn_through_its_points(tmp_path: Path) -> None:
    picture = picture_of(tmp_path / "fid.png", (0.0, 2.0), (10.0, 1.0))
    curve = picture[:, :, 2] - picture[:, :, 0] > 60  # blue
    rows, columns = np.nonzero(curve[60:])  # the legend lies above
    assert rows[columns.argmax()] > rows[columns.argmin()]  # it falls


def test_points_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    line = ((0.0, 1.0), (10.0, 2.0))
    with_nan = picture_of(tmp_path / "a.png", *line, (5.0, math.nan), (math.inf, 1.0))
    assert np.array_equal(with_nan, picture_of(tmp_path / "b.png", *line))
