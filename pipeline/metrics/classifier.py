"""A small classifier whose features measure small labelled images without published weights.

It is trained on the training split: always on the CPU, with one thread and one seed, whatever the caller has
set. So the same images give the same weights on the same kind of processor.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.data.dataset import Dataset, to_float
from pipeline.metrics.extractors import NetExtractor
from pipeline.storage.files import replacing
from pipeline.tables import EXTRACTORS

log = logging.getLogger(__name__)

# The classifier's recipe; its row in `tables.EXTRACTORS` has the version.
_WIDTHS = (32, 64, 96)
DIM = 64
_STEPS, _BATCH, _LEARNING_RATE, _DROPOUT = 700, 64, 3e-3, 0.5
_TOTAL_VARIANCE = 100.0


class DigitNet(nn.Module):
    """A small strided CNN; its features are the activations before the class layer.

    There is no batch normalisation, so the features of an image do not depend on the rest of its batch. They
    are scaled to a total variance of 100 over the training images: a constant image then has a Frechet
    distance of about 100.
    """

    scale: Tensor

    def __init__(self, size: int, channels: int, classes: int) -> None:
        super().__init__()
        halvings = max(0, (size - 1).bit_length() - 2)  # as many as bring the image to 4x4 or less
        stages = max(len(_WIDTHS), halvings)
        layers: list[nn.Module] = []
        for stage in range(stages):
            width = _WIDTHS[min(stage, len(_WIDTHS) - 1)]
            kernel, stride = (5 if stage == 0 else 3), (2 if stage >= stages - halvings else 1)
            layers += [nn.Conv2d(channels, width, kernel, stride, kernel // 2), nn.LeakyReLU(0.1)]
            channels = width
        self.stages = nn.Sequential(*layers)
        side = -(-size // 2**halvings)
        self.features = nn.Linear(channels * side * side, DIM)
        self.classes = nn.Linear(DIM, classes)
        self.register_buffer("scale", torch.ones(()))

    def hidden(self, images: Tensor) -> Tensor:
        """The unscaled features float32 (N,64) of images float32 (N,C,H,W) in [-1, 1]."""
        return F.leaky_relu(self.features(self.stages(images).flatten(1)), 0.1)

    def forward(self, images: Tensor) -> Tensor:
        """The scaled features float32 (N,64) of images uint8 (N,H,W,C)."""
        return self.hidden(to_float(images)) * self.scale


def classifier_extractor(dataset: Dataset, *, weights: str, folder: Path) -> NetExtractor:
    """The classifier of `dataset`, trained at the first call and cached in `folder`.

    It takes 10 s on one core for 28 px in grey, a minute for 64 px in colour.
    """
    row = EXTRACTORS["classifier"]
    return NetExtractor(
        "classifier", _load(dataset, folder / f"{row.version}-{dataset.fingerprint}.pt"), DIM, row
    )


def _load(dataset: Dataset, path: Path) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        net = DigitNet(dataset.size, dataset.channels, len(dataset.classes))
    with suppress(Exception):  # missing, damaged or of another shape: train again
        net.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        return net.to(memory_format=torch.channels_last)
    log.info(f"training the classifier that measures {dataset.source} (once)")
    net = train_classifier(dataset)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            torch.save(net.state_dict(), temporary)
    except OSError as error:  # a full or read-only disk: the next start trains again
        log.warning(f"the classifier is not cached: {error}")
    return net


class Accuracy(NamedTuple):
    """Share of held-out images whose class is found, in [0, 1], and that of always saying the commonest."""

    found: float
    chance: float

    def is_better(self, images: int) -> bool:
        """Whether it is above chance by a twentieth and by three standard errors of so many images."""
        error = math.sqrt(self.chance * (1 - self.chance) / images)
        return self.found > self.chance + max(0.05, 3 * error)


@torch.inference_mode()
def held_accuracy(extractor: NetExtractor, dataset: Dataset) -> Accuracy:
    """How well the classifier behind `classifier_extractor` finds the classes of the held-out images."""
    assert isinstance(extractor.net, DigitNet)
    assert dataset.held_labels is not None
    net, labels = extractor.net, torch.from_numpy(dataset.held_labels)
    blocks = torch.split(torch.from_numpy(dataset.held), 500)
    said = torch.cat([net.classes(net.hidden(to_float(block))).argmax(1) for block in blocks])
    return Accuracy(
        float((said == labels).double().mean()), float(labels.bincount().max()) / max(1, len(labels))
    )


def train_classifier(dataset: Dataset, seed: int = 0) -> DigitNet:
    """Train a classifier on the training split; deterministic in the images and `seed`."""
    assert dataset.train_labels is not None
    images, labels = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
    rng = torch.Generator().manual_seed(seed)
    with one_thread(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        net = DigitNet(dataset.size, dataset.channels, len(dataset.classes))
        net = net.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(net.parameters(), _LEARNING_RATE, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=_STEPS)
        for picked in _batches(len(images), rng):
            hidden = net.hidden(_jitter(to_float(images[picked]), rng))
            loss = F.cross_entropy(net.classes(F.dropout(hidden, _DROPOUT)), labels[picked])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        with torch.inference_mode():
            hidden = torch.cat([net(block) for block in torch.split(images[:10_000], 500)]).double()
        net.scale.fill_((_TOTAL_VARIANCE / hidden.var(0).sum().clamp(min=1e-12)).sqrt())
    return net


def _batches(count: int, rng: torch.Generator) -> Iterator[Tensor]:
    """`_STEPS` batches of indices, without replacement within an epoch."""
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(_STEPS):
        while len(queue) < _BATCH:
            queue = torch.cat([queue, torch.randperm(count, generator=rng)])
        picked, queue = queue[:_BATCH], queue[_BATCH:]
        yield picked


def _jitter(images: Tensor, rng: torch.Generator) -> Tensor:
    """Random small rotations, scalings and shifts of (N,C,H,W), so that features generalise to new images."""
    count = len(images)
    angle, zoom_x, zoom_y, shift_x, shift_y = torch.rand(5, count, generator=rng) * 2 - 1
    angle, zoom_x, zoom_y = 0.2 * angle, 1 + 0.12 * zoom_x, 1 + 0.12 * zoom_y
    row_x = [angle.cos() * zoom_x, -angle.sin(), 0.15 * shift_x]
    row_y = [angle.sin(), angle.cos() * zoom_y, 0.15 * shift_y]
    affine = torch.stack(row_x + row_y, 1).view(count, 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: sums split over threads differ in their last bits, and weights are hashed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
