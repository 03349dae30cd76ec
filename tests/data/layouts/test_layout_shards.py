"""Folders that cut one set into pieces are no classes."""

from __future__ import annotations

import json

import pytest
from trees import numbered, understand


def style_gan(count: int = 30, chunk: int = 10, root: str = "") -> list[str]:
    return [f"{root}{i // chunk:05d}/img{i:08d}.png" for i in range(count)]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (style_gan(), "numbered shards"),
        (style_gan(25), "numbered shards"),
        ([f"{i // 1000 * 1000:05d}/{i:05d}.png" for i in range(0, 4000, 37)], "numbered shards"),
        ([f"part-{i // 5:04d}/x{i}.png" for i in range(23)], "numbered shards"),
        ([f"fold{k}/{c}/{i}.png" for k in range(5) for c in "ab" for i in range(9)], "numbered shards"),
        (
            [f"images_{k:03d}/images/{i:08d}.png" for k in range(3) for i in range(k * 9, k * 9 + 5 + k)],
            "shards",
        ),
        ([*numbered("100CANON", 5), *numbered("101CANON", 7)], "camera"),
        ([*numbered("2019-05-31", 5), *numbered("2020_01", 7)], "dates"),
        ([*numbered("Photos from 2019", 5), *numbered("2020_01", 7), *numbered("Trip", 3)], "mostly dates"),
        ([f"{k:02x}/{k:02x}{'0a' * 15}.png" for k in range(40)], "digits"),
        (style_gan(root="train/"), "numbered shards"),
    ],
)
def test_pieces_are_no_classes(names: list[str], why: str) -> None:
    seen = understand(names)
    assert (len(seen.files), seen.layout.labels, seen.left_out) == (len(names), None, {})
    assert why in seen.note("--classes folders makes them classes")
    assert len(understand(names, classes="folders").names) > 1


@pytest.mark.parametrize(
    "names",
    [
        [f"{i % 12}/{i}.png" for i in range(240)],
        [f"{i // 100}/{i}.png" for i in range(1000)],  # exported in order of the classes
        [f"{k:05d}/{i}.png" for k in range(3) for i in range(9)],
        [f"class-{k:05d}/{k * 10 + i:09d}.png" for k in range(3) for i in range(10)],
        [f"n0{k}443537/{i}.png" for k in range(3) for i in range(9)],
        [*numbered("2019-05-31", 5), *numbered("cats", 9)],
        [f"{year}/{i}.png" for year in (2019, 2020) for i in range(9)],
    ],
)
def test_numbered_classes_are(names: list[str]) -> None:
    assert understand(names).layout.labels is not None


def dataset_json(labels: object) -> dict[str, str]:
    return {"dataset.json": json.dumps({"labels": labels})}


def test_style_gan_labels() -> None:
    names = style_gan()
    seen = understand(names, dataset_json([[name, i % 3 + 8] for i, name in enumerate(names)]))
    assert seen.classes == {"8": 10, "9": 10, "10": 10}
    assert seen.class_of("00001/img00000011.png") == "10"
    assert seen.findings.classes_from == "dataset.json, column label"
    wrapped = {
        "data/dataset.json": json.dumps({"labels": [[name, 1 + i % 2] for i, name in enumerate(names)]})
    }
    assert understand([f"data/{name}" for name in names], wrapped).classes == {"1": 15, "2": 15}


def test_style_gan_without_labels() -> None:
    odd = [f"{k:05d}/{i}.png" for k in range(3) for i in range(9)]  # no shards by their names
    seen = understand(odd, dataset_json(None))
    assert (len(seen.files), seen.layout.labels) == (27, None)
    assert "--classes folders" in seen.note("dataset.json has none")
    assert understand(style_gan(), {"dataset.json": '{"name": "x"}'}).layout.labels is None


def test_style_gan_vectors() -> None:
    names = style_gan()
    hot = [[name, [float(i % 3 == k) for k in range(3)]] for i, name in enumerate(names)]
    assert understand(names, dataset_json(hot)).classes == {"0": 10, "1": 10, "2": 10}
    seen = understand(names, dataset_json([[name, [0.25, 0.75]] for name in names]))
    assert seen.layout.labels is None
    assert "no single class" in seen.note("dataset.json is not used")


def test_images_without_a_label_and_a_damaged_file() -> None:
    names = style_gan()
    seen = understand(
        names, dataset_json([[name, i % 2] for i, name in enumerate(names[:28])] + [["x.png", 0]])
    )
    assert (seen.classes, seen.left_out) == ({"0": 14, "1": 14}, {"without a class in dataset.json": 2})
    assert "x.png" in seen.note("name no image here")
    damaged = understand(names, {"dataset.json": '{"labels": [['})
    assert damaged.layout.labels is None
    assert "no JSON" in damaged.note("dataset.json is not used")
