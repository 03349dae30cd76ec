"""Images of a generator: the streams that are measured, and the sample grid of a tick.

A conditional generator gets labels as frequent as those of the training split.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.metrics.generator_metrics import Sample
from pipeline.training.networks.blocks import Generator
from pipeline.training.networks.build import to_uint8
from pipeline.training.prefetch import place_labels
from pipeline.training.seeds import EVALUATION_SEED

_GRID_IMAGES = 50
_CHUNK = 250


def image_sampler(
    generator: Generator, dataset: Dataset, seed: int = EVALUATION_SEED
) -> Callable[[int], Tensor]:
    """A function n -> the next n images uint8 (n,H,W,C) of a stream that begins at `seed`."""
    stream = _stream(generator, dataset, seed)
    return lambda n: stream(n)[0]


def labelled_image_sampler(generator: Generator, dataset: Dataset) -> Sample:
    """A function (n, seed) -> n images uint8 (n,H,W,C), and their labels (n,) or None."""
    return lambda n, seed: _stream(generator, dataset, seed)(n)


def _stream(
    generator: Generator, dataset: Dataset, seed: int
) -> Callable[[int], tuple[Tensor, Tensor | None]]:
    device = next(generator.parameters()).device
    rng = torch.Generator(device).manual_seed(seed)
    data_labels = place_labels(dataset.train_labels, device)

    @torch.inference_mode()
    def draw(count: int) -> tuple[Tensor, Tensor | None]:
        z, labels = draw_latents(generator, count, rng, data_labels)
        parts = [
            generator(z[i : i + _CHUNK], None if labels is None else labels[i : i + _CHUNK])
            for i in range(0, count, _CHUNK)
        ]
        return to_uint8(torch.cat(parts)), labels

    return draw


def draw_latents(
    generator: Generator, count: int, rng: torch.Generator, data_labels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """z (N,Z) ~ N(0, I) and, for a conditional generator, its labels (N,), as frequent as in the data."""
    z = torch.randn(count, generator.z_dim, generator=rng, device=rng.device)
    if not generator.classes or data_labels is None:
        return z, None
    return z, data_labels[torch.randint(len(data_labels), (count,), generator=rng, device=rng.device)]


@torch.inference_mode()
def sample_grid(generator: Generator) -> Tensor:
    """50 images uint8 (N,H,W,C), of the same latents at every tick and of all classes in turn."""
    device = next(generator.parameters()).device
    rng = torch.Generator(device).manual_seed(EVALUATION_SEED)
    z = torch.randn(_GRID_IMAGES, generator.z_dim, generator=rng, device=device)
    labels = torch.arange(_GRID_IMAGES, device=device) % max(generator.classes, 1)
    return to_uint8(generator(z, labels if generator.classes else None))
