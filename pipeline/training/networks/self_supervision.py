"""A discriminator that learns to reconstruct real images from its feature maps (Liu et al. 2021).

Small decoders draw the whole image at half its size from one map, and a random quarter of it from the map of
twice that side. So D must keep in its maps what is in an image, and overfits later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pipeline.training.networks.blocks import Discriminator


class Decoders(nn.Module):
    """Reconstructions of images from D's feature maps, and how far off they are.

    Args:
        whole: map `small` of D -> the images at half their size, (N,C,H/2,W/2).
        part: a quarter of the map before `small` -> the same quarter of the images.
        small: index of a feature map, the largest first.
    """

    def __init__(self, whole: nn.Module, part: nn.Module, small: int) -> None:
        super().__init__()
        self.whole, self.part, self.small = whole, part, small

    def forward(self, images: Tensor, maps: list[Tensor], draws: Tensor) -> Tensor:
        """Mean absolute error of both reconstructions, a scalar.

        images: (N,C,H,W) as D saw them. maps: of the same images. draws: (N,2) uniform in [0, 1).
        """
        whole = self.whole(maps[self.small])
        part = self.part(quarter(maps[self.small - 1], draws))
        small, crop = avg_pool2d(images, 2), quarter(images, draws)
        error: Tensor = (whole.float() - small).abs().mean() + (part.float() - crop).abs().mean()
        return error


class SelfSupervisedBody(nn.Module):
    """The body of a D that reconstructs: images (N,C,H,W) -> features (N, features).

    stages: each makes the next feature map, the first one from the images.
    """

    def __init__(self, stages: Sequence[nn.Module], decoders: Decoders) -> None:
        super().__init__()
        self.stages, self.decoders = nn.ModuleList(stages), decoders

    def maps(self, images: Tensor) -> list[Tensor]:
        """All feature maps, the largest first."""
        maps: list[Tensor] = []
        for stage in self.stages:
            maps.append(stage(maps[-1] if maps else images))
        return maps

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images)[-1].flatten(1)


class SelfSupervisedDiscriminator(Discriminator):
    """A `Discriminator` that reconstructs, where it is trained on reals."""

    reconstructs = True
    body: SelfSupervisedBody

    @overload
    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor: ...
    @overload
    def forward(self, images: Tensor, labels: Tensor | None, draws: Tensor) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, images: Tensor, labels: Tensor | None = None, draws: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (N,); with draws also the error of reconstructing the first M images, a scalar.

        draws: (M,2) uniform in [0, 1), which choose a quarter of each image.
        """
        if draws is None:
            return super().forward(images, labels)
        maps = self.body.maps(images)
        of_reals = [features[: len(draws)] for features in maps]
        error = self.body.decoders(images[: len(draws)].detach(), of_reals, draws)
        return self.judge(maps[-1].flatten(1), labels), error


def quarter(images: Tensor, draws: Tensor) -> Tensor:
    """One of the four quarters of each image, (N,C,H,W) -> (N,C,H/2,W/2). draws: (N,2) uniform in [0, 1)."""
    height, width = images.shape[2] // 2, images.shape[3] // 2
    lower, right = (draws.view(-1, 2, 1, 1, 1) >= 0.5).unbind(1)
    rows = torch.where(lower, images[:, :, height:], images[:, :, :height])
    return torch.where(right, rows[:, :, :, width:], rows[:, :, :, :width])
