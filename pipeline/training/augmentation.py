"""Augmentation that D sees and G does not learn.

Owns: DiffAugment (color, translation, cutout; Zhao et al. 2020) and the law by which ADA's probability
follows the overfitting of D (Karras et al. 2020). Refuses: knowing the trainer; flips (digits have a side).

Reals and fakes go through the same random functions, differentiably, so that G is told of its own images
and not of the augmented ones. That holds as long as an image often passes untouched: with a probability
above 0.8 G begins to draw the augmentations themselves, hence `ADA_CEILING`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ADA_CEILING = 0.8
"""ADA's probability never passes this: above it augmentations leak into the fakes (Karras et al. 2020)."""

ADA_WIDTH = 0.1
"""The distance of `overfit` from its target at which p moves at full speed."""

_SHIFT = 0.125  # of the side, each way
_CUT = 0.5  # side of the square that is cut out, of the image's side


def diffaugment(images: Tensor, p: float | Tensor, rng: torch.Generator) -> Tensor:
    """Change each image with probability p, each in its own way, and leave the others bit for bit.

    images: (N,C,H,W) in [-1, 1]. p: a number, or a scalar on the images' device, which is not looked at
    beforehand. rng: on the images' device. Returns (N,C,H,W) float32 in channels_last
    memory, differentiable by the images and not confined to [-1, 1]; the images themselves where p is 0.
    One draw, no wait for the device.
    """
    if not isinstance(p, Tensor) and p <= 0:
        return images
    draws = torch.rand(len(images), 8, generator=rng, device=images.device)
    images = images.float()
    changed = random_cutout(
        random_translation(random_color(images, draws[:, 1:4]), draws[:, 4:6]), draws[:, 6:8]
    )
    # A mask, not an index: the host need not know which were chosen.
    mixed = torch.where(draws[:, 0].view(-1, 1, 1, 1) < p, changed, images)
    return mixed.contiguous(memory_format=torch.channels_last)


def random_color(images: Tensor, draws: Tensor) -> Tensor:
    """Brightness +-0.5, saturation times 0 to 2, contrast times 0.5 to 1.5.

    images: (N,C,H,W). draws: (N,3) uniform in [0, 1). A grey image has no saturation.
    """
    brightness, saturation, contrast = draws.view(-1, 3, 1, 1, 1).unbind(1)
    images = images + (brightness - 0.5)
    if images.shape[1] > 1:
        grey = images.mean(dim=1, keepdim=True)
        images = grey + (images - grey) * (2 * saturation)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def random_translation(images: Tensor, draws: Tensor) -> Tensor:
    """Shift by whole pixels, at most an eighth of the side each way; what comes in is 0, mid-grey.

    images: (N,C,H,W). draws: (N,2) uniform in [0, 1), down and right.
    """
    count, channels, height, width = images.shape
    rows, in_rows = _sources(height, draws[:, 0])
    columns, in_columns = _sources(width, draws[:, 1])
    places = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
    moved = images.reshape(count, channels, -1).gather(2, places.expand(-1, channels, -1))
    return moved.view_as(images) * (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def random_cutout(images: Tensor, draws: Tensor) -> Tensor:
    """Put 0 into a square of half the side whose centre lies anywhere; it may hang over the edge.

    images: (N,C,H,W). draws: (N,2) uniform in [0, 1), down and right.
    """
    in_rows = _cut(images.shape[2], draws[:, 0])
    in_columns = _cut(images.shape[3], draws[:, 1])
    return images * ~(in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def next_augment_p(p: float, overfit: float, target: float, step: float, ceiling: float) -> float:
    """ADA's probability for the next tick.

    The law: p moves towards less overfitting, by step * (overfit - target) / ADA_WIDTH, never by more than
    `step`, and stays in [0, min(ceiling, ADA_CEILING)]. A reading that is NaN moves nothing.

    overfit, target: P(D(training real) > D(held-out real)); 0.5 = D knows no image by heart.
    """
    if not math.isfinite(overfit):
        return p
    speed = max(-1.0, min(1.0, (overfit - target) / ADA_WIDTH))
    return max(0.0, min(p + step * speed, ceiling, ADA_CEILING))


def _sources(side: int, draw: Tensor) -> tuple[Tensor, Tensor]:
    """For each of `side` lines the line it comes from (N,side), and whether that lies in the image."""
    most = int(side * _SHIFT + 0.5)
    shift = (draw * (2 * most + 1)).long().clamp_max(2 * most) - most
    lines = torch.arange(side, device=draw.device) - shift[:, None]
    return lines.clamp(0, side - 1), (lines >= 0) & (lines < side)


def _cut(side: int, draw: Tensor) -> Tensor:
    """Whether each of `side` lines is within the cut: bool (N,side)."""
    length = int(side * _CUT + 0.5)
    places = side + 1 - length % 2
    first = (draw * places).long().clamp_max(places - 1) - length // 2
    lines = torch.arange(side, device=draw.device) - first[:, None]
    return (lines >= 0) & (lines < length)
