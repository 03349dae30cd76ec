"""The model card of a generator: README.md, pictures and metrics.json.

All numbers come from the generator's metadata and its trial's records; nothing is measured here.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jinja2 import Template
from PIL import Image

from pipeline.data.dataset import Dataset
from pipeline.data.pictures import DRAWN_BY, image_sheet, save_drawing
from pipeline.data.source_types import Labels, Pixels
from pipeline.metrics.measurement import METRICS
from pipeline.records import METRICS as TICK_METRICS
from pipeline.records import TrialRecord
from pipeline.storage.files import cache_root, replacing, write_bytes, write_text
from pipeline.storage.folders import may_write
from pipeline.storage.typed_json import to_json
from pipeline.tracking.registry.latent_walk import walk_sprites
from pipeline.tracking.registry.load import LoadedGenerator
from pipeline.tracking.registry.metadata import text_of

CARD_FOLDER = "card"
"""Folder of the card in a packed folder."""

_SIDE = 8  # images in a row of a grid
_NEIGHBOUR_SAMPLES = 12

SECTIONS = {
    "Quality": "fid fid_low fid_high n extractor evaluator fid_held fid_infinity kid kid_error precision "
    "recall density coverage label_accuracy custom second_extractor second_fid second_low second_high "
    "second_opinion notes",
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

    dataset: the training images. records: of its trial, oldest first. seed: of the samples.
    """
    folder = packed / CARD_FOLDER
    folder.mkdir(exist_ok=True)
    samples, labels = generator.sample(_SIDE * _SIDE, seed)
    _save(image_sheet(samples, _SIDE), folder / "samples.png")
    _save(_side_by_side(_training_images(dataset, labels), samples), folder / "real_and_generated.png")
    _save(_nearest_neighbours(samples[:_NEIGHBOUR_SAMPLES], dataset), folder / "neighbours.png")
    for sprite, data in walk_sprites(generator).items():
        write_bytes(folder / f"{sprite}.webp", data)
    measured = [(r.kimg, r.fid) for r in records if r.fid is not None]
    save_curves(folder / "fid.png", {"fid": measured})
    balance = {key: [(r.kimg, getattr(r, key)) for r in records] for key in ("balance", "auc")}
    save_curves(folder / "balance.png", balance, highest=1.0)
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
    meanings = {key: row.meaning for key, row in (TICK_METRICS | METRICS).items()}  # some have equal names
    rows = [(key, text_of(facts[key])) for key in keys if facts.get(key) not in (None, {})]
    cells = [(key, value, meanings.get(key, "")) for key, value in rows]
    return [[cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in cells]


# ---- pictures


def _save(picture: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        save_drawing(picture, temporary)


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
    first, second = image_sheet(left, _SIDE), image_sheet(right, _SIDE)
    begin = first.width + max(4, left.shape[1] // 4)
    both = Image.new(first.mode, (begin + second.width, max(first.height, second.height)), "white")
    both.paste(first, (0, 0))
    both.paste(second, (begin, 0))
    return both


def _nearest_neighbours(samples: Pixels, dataset: Dataset) -> Image.Image:
    """Samples above their two nearest training images, by distance of pixels at 32 px at most."""
    small = _shrunk(samples)
    distances = [
        torch.cdist(small, _shrunk(dataset.train[start : start + 5000]))
        for start in range(0, len(dataset.train), 5000)
    ]
    indices = torch.cat(distances, 1).topk(2, largest=False).indices
    rows = [samples, *(dataset.train[indices[:, rank].numpy()] for rank in range(2))]
    return image_sheet(np.concatenate(rows), len(samples))


def _shrunk(images: Pixels) -> torch.Tensor:
    side = min(32, images.shape[1])
    blocks = torch.split(torch.from_numpy(images).permute(0, 3, 1, 2), 500)
    return torch.cat([F.adaptive_avg_pool2d(block.float(), side).flatten(1) for block in blocks])


def save_curves(
    path: Path, lines: Mapping[str, Sequence[tuple[float, float]]], highest: float | None = None
) -> None:
    """Write a chart over kimg of 640 x 360 px, with both axes from 0.

    Args:
        lines: points (kimg, y) by name; points that are not finite are left out.
        highest: the upper end of y; None = by the points.
    """
    if not may_write(Path("~/.config/matplotlib").expanduser()):  # matplotlib warns on stderr
        os.environ.setdefault("MPLCONFIGDIR", str(cache_root() / "matplotlib"))
    from matplotlib.figure import Figure  # half a second, which a command that samples need not wait

    figure = Figure(figsize=(6.4, 3.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, line in lines.items():
        finite = [point for point in line if all(map(math.isfinite, point))]
        axes.plot([x for x, _ in finite], [y for _, y in finite], marker=".", label=name)
    axes.set(xlabel="kimg", xlim=(0, None), ylim=(0, highest))
    axes.grid(color="0.85")
    axes.legend(title="" if any(lines.values()) else "no measurement")
    with replacing(path) as temporary:
        figure.savefig(temporary, metadata={"Software": DRAWN_BY})
