"""Images of a generator: the stream that fids are measured on, and a tick's grid.

Owns: which latents and labels a generator is given, in which blocks. Refuses: what is made of the images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.data.dataset import Dataset
from pipeline.metrics.evaluation import Sample
from pipeline.training.networks.blocks import Generator
from pipeline.training.networks.build import to_uint8
from pipeline.training.prefetch import place_labels

EVALUATION_SEED = 20_151_205
"""Latents of every in-search fid, the same for all trials and ticks: differences are the networks'."""

_GRID = 50
_CHUNK = 250


def sampler(generator: Generator, dataset: Dataset, seed: int = EVALUATION_SEED) -> Callable[[int], Tensor]:
    """A function n -> the next n images uint8 (n,H,W,C) of a stream that begins at `seed`."""
    device = next(generator.parameters()).device
    rng = torch.Generator(device).manual_seed(seed)
    labels = place_labels(dataset.train_labels, device)

    @torch.inference_mode()
    def sample(count: int) -> Tensor:
        return to_uint8(draw(generator, count, rng, labels)[0])

    return sample


def labelled_sampler(generator: Generator, dataset: Dataset) -> Sample:
    """What `measure_generator` wants, of a generator: latents from the seed, labels as frequent as the data's."""
    device = next(generator.parameters()).device
    known = place_labels(dataset.train_labels, device)

    @torch.inference_mode()
    def sample(n: int, seed: int) -> tuple[Tensor, Tensor | None]:
        images, labels = draw(generator, n, torch.Generator(device).manual_seed(seed), known)
        return to_uint8(images), labels

    return sample


def draw(
    generator: Generator, count: int, rng: torch.Generator, data_labels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """`count` images (N,C,H,W) in [-1, 1] and their labels, as frequent as in `data_labels`."""
    z = torch.randn(count, generator.z_dim, generator=rng, device=rng.device)
    labels = None
    if generator.classes and data_labels is not None:
        labels = data_labels[torch.randint(len(data_labels), (count,), generator=rng, device=rng.device)]
    parts = [
        generator(z[i : i + _CHUNK], None if labels is None else labels[i : i + _CHUNK])
        for i in range(0, count, _CHUNK)
    ]
    return torch.cat(parts), labels


@torch.inference_mode()
def grid(generator: Generator) -> Tensor:
    """The same latents at every tick; a conditional G shows its classes in columns."""
    device = next(generator.parameters()).device
    rng = torch.Generator(device).manual_seed(EVALUATION_SEED)
    z = torch.randn(_GRID, generator.z_dim, generator=rng, device=device)
    labels = torch.arange(_GRID, device=device) % max(generator.classes, 1)
    return to_uint8(generator(z, labels if generator.classes else None))
