"""The model card of a generator, as Markdown with pictures.

Files: README.md, samples.png, real_and_generated.png, neighbours.png, fid.png, balance.png, metrics.json. All
numbers come from the generator's metadata and its trial's records; nothing is measured here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jinja2 import Template
from PIL import Image, ImageDraw, ImageFont

from pipeline.data.dataset import Dataset
from pipeline.data.pictures import image_sheet
from pipeline.data.preprocessing import Labels, Pixels
from pipeline.records import METRICS, TrialRecord
from pipeline.storage.files import replacing, write_text
from pipeline.storage.typed_json import to_json
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import text_of

CARD_FOLDER = "card"
"""Folder of the card in a packed folder."""

_SIDE = 8  # images in a row of a grid
_NEIGHBOUR_SAMPLES = 12
_INK, _PALE, _LINES = (40, 40, 40), (200, 200, 200), ((0, 114, 178), (213, 94, 0))

SECTIONS = {
    "Quality": "fid fid_low fid_high n extractor evaluator fid_held fid_infinity kid kid_error precision "
    "recall density coverage label_accuracy custom",
    "Memorization and mode collapse": "memorisation memorisation_auc copied collapse modes modes_total "
    "imbalance diversity duplicates withhold",
    "Training": "balance auc overfit kimg params trial seed search_seed seconds device gpu_hours",
    "Provenance": "sweep sweep_run_id run_id data fingerprint space git.commit git.dirty",
}


def write_card(
    packed: Path,
    generator: LoadedGenerator,
    dataset: Dataset,
    records: Sequence[TrialRecord],
    *,
    name: str,
    seed: int = 0,
) -> Path:
    """Write the card of the generator in the folder `packed` into the folder `card` in it; returns that one.

    Args:
        dataset: the training images to compare with.
        records: of its trial, oldest first, for the curves.
        name: title of the card.
        seed: of the samples.
    """
    folder = packed / CARD_FOLDER
    folder.mkdir(exist_ok=True)
    samples, labels = generator.sample(_SIDE * _SIDE, seed)
    _save(image_sheet(samples, _SIDE), folder / "samples.png")
    _save(_side_by_side(_training_images(dataset, labels), samples), folder / "real_and_generated.png")
    _save(_nearest_neighbours(samples[:_NEIGHBOUR_SAMPLES], dataset), folder / "neighbours.png")
    measured = [(r.kimg, r.fid) for r in records if r.fid is not None]
    _save(draw_curves({"fid": measured}, "fid over kimg"), folder / "fid.png")
    balance = {key: [(r.kimg, getattr(r, key)) for r in records] for key in ("balance", "auc")}
    _save(draw_curves(balance, "balance and auc over kimg", bounds=(0.0, 1.0)), folder / "balance.png")
    metrics = {"facts": generator.metadata.to_json(), "records": [record.to_dict() for record in records]}
    write_text(folder / "metrics.json", json.dumps(to_json(metrics), indent=1, allow_nan=False) + "\n")
    write_text(folder / "README.md", _markdown(name, generator))
    return folder


def _markdown(name: str, generator: LoadedGenerator) -> str:
    source = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    template = Template(source, trim_blocks=True, keep_trailing_newline=True)
    facts = generator.metadata.to_json()
    text: str = template.render(
        name=name,
        size=generator.size,
        channels=generator.channels,
        colours="grey" if generator.channels == 1 else f"{generator.channels} channels",
        classes=f"{generator.classes} classes" if generator.classes else "unconditional",
        sections=[(title, _rows(facts, keys.split())) for title, keys in SECTIONS.items()],
    )
    return text


def _rows(facts: Mapping[str, object], keys: Sequence[str]) -> list[list[str]]:
    """Cells of a table: key, value, meaning."""
    rows = [(key, text_of(facts[key])) for key in keys if facts.get(key) not in (None, {})]
    meanings = {key: METRICS[key].meaning if key in METRICS else "" for key, _ in rows}
    return [[cell.replace("|", "/").replace("\n", " ") for cell in (*row, meanings[row[0]])] for row in rows]


# ---- pictures


def _save(picture: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        picture.save(temporary)


def _training_images(dataset: Dataset, labels: Labels | None) -> Pixels:
    """Random training images; for a conditional model of the same classes as the samples, in their order."""
    rng = np.random.default_rng(0)
    if labels is None or dataset.train_labels is None:
        return dataset.train[rng.permutation(len(dataset.train))[: _SIDE * _SIDE]]
    by_class = {int(k): np.flatnonzero(dataset.train_labels == k) for k in np.unique(labels)}
    all_images = np.arange(len(dataset.train))
    return dataset.train[
        [rng.choice(by_class[int(k)] if len(by_class[int(k)]) else all_images) for k in labels]
    ]


def _side_by_side(left: Pixels, right: Pixels) -> Image.Image:
    pictures = [np.asarray(image_sheet(images, _SIDE)) for images in (left, right)]
    height = max(picture.shape[0] for picture in pictures)
    gap = np.full((height, max(4, left.shape[1] // 4), *pictures[0].shape[2:]), 255, np.uint8)
    padded = [np.pad(p, [(0, height - p.shape[0])] + [(0, 0)] * (p.ndim - 1)) for p in pictures]
    return Image.fromarray(np.concatenate([padded[0], gap, padded[1]], axis=1))


def _nearest_neighbours(samples: Pixels, dataset: Dataset) -> Image.Image:
    """Samples above their two nearest training images, by distance of pixels at 32 px at most."""
    distances = [
        torch.cdist(_shrunk(samples), block)
        for block in _shrunk(dataset.train).chunk(-(-len(dataset.train) // 5000))
    ]
    indices = torch.cat(distances, 1).topk(2, largest=False).indices
    rows = [samples, *(dataset.train[indices[:, rank].numpy()] for rank in range(2))]
    return image_sheet(np.concatenate(rows), len(samples))


def _shrunk(images: Pixels) -> torch.Tensor:
    blocks = []
    for begin in range(0, len(images), 500):
        block = torch.from_numpy(images[begin : begin + 500]).permute(0, 3, 1, 2).float()
        block = F.adaptive_avg_pool2d(block, 32) if block.shape[2] > 32 else block
        blocks.append(block.flatten(1))
    return torch.cat(blocks)


def draw_curves(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    *,
    bounds: tuple[float, float] | None = None,
) -> Image.Image:
    """A chart of 640 x 360 px, with x from 0.

    Args:
        lines: points (x, y) by name; points that are not finite are left out.
        bounds: lowest and highest y; None = from 0 to 5 % above the largest.
    """
    finite = {name: [p for p in line if all(map(math.isfinite, p))] for name, line in lines.items()}
    points = [point for line in finite.values() for point in line]
    picture = Image.new("RGB", (640, 360), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    pen.text((60, 8), title, _INK, font)
    if not points:
        pen.text((260, 170), "no measurement", _INK, font)
        return picture
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    low, high = bounds or (0.0, max(ys) * 1.05 or 1.0)
    first, last = (0.0, max(xs) or 1.0)

    def to_pixels(point: tuple[float, float]) -> tuple[float, float]:
        right, up = (point[0] - first) / (last - first), (point[1] - low) / ((high - low) or 1.0)
        return 60 + 550 * right, 320 - 280 * min(max(up, 0.0), 1.0)

    for step in range(5):
        value, kimg = low + (high - low) * step / 4, first + (last - first) * step / 4
        y, x = to_pixels((first, value))[1], to_pixels((kimg, low))[0]
        pen.line([(60, y), (610, y)], _PALE)
        pen.text((52, y), f"{value:.3g}", _INK, font, anchor="rm")
        pen.text((x, 326), f"{kimg:.3g}", _INK, font, anchor="ma")
    for index, (name, line) in enumerate(finite.items()):
        colour = _LINES[index % len(_LINES)]
        pixels = [to_pixels(point) for point in line]
        pen.line(pixels, colour, 2)
        for x, y in pixels:
            pen.ellipse([x - 2, y - 2, x + 2, y + 2], fill=colour)
        pen.text((610 - 70 * index, 8), name, colour, font, anchor="ra")
    return picture
