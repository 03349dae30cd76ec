"""Differentiable augmentation: DiffAugment, and the control of its probability as in ADA.

DiffAugment (color, translation, cutout; Zhao et al. 2020) has no flips here: mirrored digits are no digits,
and where mirror images are as good as the images, `TrialConfig.mirror` trains on both.
ADA adapts the probability to the overfitting of D (Karras et al. 2020).

Reals and fakes pass through the same random, differentiable functions before D, so that G learns the
distribution of unaugmented images, as long as many images stay unaugmented.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ADA_CEILING = 0.8
"""Maximum of ADA's probability: above it augmentations leak into the fakes (Karras et al. 2020)."""
ADA_WIDTH = 0.1
"""Distance of `overfit` from its target at which p changes by a full step."""

_SHIFT = 0.125  # largest translation in each direction, relative to the image side
_CUT = 0.5  # side of the cut-out square, relative to the image side


def diffaugment(images: Tensor, p: float | Tensor, rng: torch.Generator) -> Tensor:
    """Augment each image independently with probability p; the others stay bit-identical.

    Makes one draw from `rng` and never synchronises with the device.

    Args:
        images: (N,C,H,W) in [-1, 1].
        p: in [0, 1]: a number, or a scalar tensor on the device of the images, which is not read by the host.
        rng: on the device of the images.

    Returns:
        float32 (N,C,H,W) in channels_last memory, differentiable in the images and not clipped to [-1, 1];
        the images themselves if p is the number 0.
    """
    if not isinstance(p, Tensor) and p <= 0:
        return images
    draws = torch.rand(len(images), 8, generator=rng, device=images.device)
    images = images.float()
    changed = random_cutout(
        random_translation(random_color(images, draws[:, 1:4]), draws[:, 4:6]), draws[:, 6:8]
    )
    # A mask instead of indices: the host need not know which images were chosen.
    mixed = torch.where(draws[:, 0].view(-1, 1, 1, 1) < p, changed, images)
    return mixed.contiguous(memory_format=torch.channels_last)


def random_color(images: Tensor, draws: Tensor) -> Tensor:
    """Brightness +-0.5, saturation times 0 to 2, contrast times 0.5 to 1.5.

    images: (N,C,H,W); saturation is skipped for C = 1. draws: (N,3) uniform in [0, 1).
    """
    brightness, saturation, contrast = draws.view(-1, 3, 1, 1, 1).unbind(1)
    images = images + (brightness - 0.5)
    if images.shape[1] > 1:
        grey = images.mean(dim=1, keepdim=True)
        images = grey + (images - grey) * (2 * saturation)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def random_translation(images: Tensor, draws: Tensor) -> Tensor:
    """Shift by whole pixels, at most an eighth of the side each way; the uncovered area is 0, mid-grey.

    images: (N,C,H,W). draws: (N,2) uniform in [0, 1), for down and right.
    """
    count, channels, height, width = images.shape
    rows, in_rows = _sources(height, draws[:, 0])
    columns, in_columns = _sources(width, draws[:, 1])
    indices = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, -1)
    moved = images.reshape(count, channels, -1).gather(2, indices.expand(-1, channels, -1))
    return moved.view_as(images) * (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def random_cutout(images: Tensor, draws: Tensor) -> Tensor:
    """Set a square of half the image side to 0; its centre is anywhere, so it may extend over the edge.

    images: (N,C,H,W). draws: (N,2) uniform in [0, 1), for down and right.
    """
    in_rows = _cut(images.shape[2], draws[:, 0])
    in_columns = _cut(images.shape[3], draws[:, 1])
    return images * ~(in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def next_augment_p(p: float, overfit: float, target: float, step: float, ceiling: float) -> float:
    """ADA's probability for the next tick (after Karras et al. 2020).

    p changes by step * (overfit - target) / ADA_WIDTH, at most by `step`, and stays in
    [0, min(ceiling, ADA_CEILING)]. If `overfit` is NaN, p does not change. overfit, target: P(D(training
    real) > D(held-out real)); 0.5 = D does not overfit.
    """
    if not math.isfinite(overfit):
        return p
    speed = max(-1.0, min(1.0, (overfit - target) / ADA_WIDTH))
    return max(0.0, min(p + step * speed, ceiling, ADA_CEILING))


def _sources(side: int, draw: Tensor) -> tuple[Tensor, Tensor]:
    """Source row of each of `side` rows, int64 (N,side), and whether it is inside the image; draw: (N,)."""
    most = int(side * _SHIFT + 0.5)
    shift = (draw * (2 * most + 1)).long().clamp_max(2 * most) - most
    rows = torch.arange(side, device=draw.device) - shift[:, None]
    return rows.clamp(0, side - 1), (rows >= 0) & (rows < side)


def _cut(side: int, draw: Tensor) -> Tensor:
    """Whether each of `side` rows is within the cut-out, bool (N,side); draw: (N,)."""
    length = int(side * _CUT + 0.5)
    positions = side + 1 - length % 2
    first = (draw * positions).long().clamp_max(positions - 1) - length // 2
    rows = torch.arange(side, device=draw.device) - first[:, None]
    return (rows >= 0) & (rows < length)
