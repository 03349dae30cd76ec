"""R3GAN's networks (Huang et al. 2024, Config E): residual, without normalisation.

At every resolution a 1x1 convolution to a new width, then bottleneck blocks that expand by 2 around a grouped
3x3 convolution. Resampling filters with [1,2,1] on top of the nearest pixels, as published: [1,3,3,1] in all.
G begins with a learned basis of the smallest map, weighted by a linear map of z (and the class); D ends
with a depthwise convolution over that map.

Widths double with each halving of the resolution, up to 768: 768 at 32 px (CIFAR-10), 384 at 64 px and 96 at
256 px (FFHQ) give the published networks, with depth_g = depth_d = 2. Not as published: D's head starts with
He's gain instead of 1 and has a bias, and upsampling repeats the edge pixels instead of padding with 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu

from pipeline.config import TrialConfig
from pipeline.training.networks.architectures import HE_GAIN_SQUARED, SLOPE, Architecture, draw_weights
from pipeline.training.networks.blocks import ImageShape, OwnInitialisation
from pipeline.training.networks.sizes import halvings

_MAX_WIDTH = 768
_EXPANSION = 2
_GROUP = 16  # channels of a group of the 3x3 convolutions


class Bottleneck(OwnInitialisation):
    """x + conv1x1(act(conv3x3(act(conv1x1(x))))), (N,width,H,W) -> the same shape; starts as the identity.

    blocks: number of blocks in the network; the more, the smaller are the first weights (Zhang et al. 2019).
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        wide = width * _EXPANSION
        self.expand = nn.Conv2d(width, wide, 1)
        self.mix = nn.Conv2d(wide, wide, 3, 1, 1, groups=groups_of(wide))
        self.last = nn.Conv2d(wide, width, 1, bias=False)
        self._gain_squared = HE_GAIN_SQUARED * blocks**-0.5  # the gain has exponent -1 / (2 * 3 - 2)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.mix(leaky_relu(self.expand(x), SLOPE))
        change: Tensor = self.last(leaky_relu(inner, SLOPE))
        return x + change

    def initialise(self, identity: bool) -> None:
        for layer in (self.expand, self.mix):
            draw_weights(layer, self._gain_squared)
        if identity:
            nn.init.zeros_(self.last.weight)


class _Linear(OwnInitialisation):
    """A linear layer that no rectifier follows: its weights have a gain of 1."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layer(x)
        return output

    def initialise(self, identity: bool) -> None:
        draw_weights(self.layer, 1.0)


class _Basis(OwnInitialisation):
    """Coefficients (N,width) -> (N,width,side,side): each channel is a learned map times its coefficient."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.empty(width, side, side))

    def forward(self, coefficients: Tensor) -> Tensor:
        return coefficients[:, :, None, None] * self.maps.to(coefficients.dtype)

    def initialise(self, identity: bool) -> None:
        nn.init.normal_(self.maps)


class Downsample(nn.Module):
    """(N,C,H,W) -> (N,C,H/2,W/2), filtered with [1,3,3,1]/8 in both directions; zero-padded."""

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("taps", taps.outer(taps)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = _Down.apply(x, self.taps)
        return output


class _Down(Function):
    """The filter, with stride 2. Its gradient is `_Up`, and the other way round, for any order.

    A convolution would do the same, at twice the time for the gradient of a gradient on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(taps)
        return _filtered(conv2d, x, taps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Up.apply(gradient, *ctx.saved_tensors), None


class _Up(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(taps)
        return _filtered(conv_transpose2d, x, taps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Down.apply(gradient, *ctx.saved_tensors), None


def _filtered(convolve: Any, x: Tensor, taps: Tensor) -> Tensor:
    # On a CPU depthwise convolutions in bfloat16 take four times as long as in float32.
    work = x.float() if x.device.type == "cpu" else x
    with torch.autocast(x.device.type, enabled=False):
        weight = taps.to(work.dtype).expand(x.shape[1], 1, 4, 4)
        output: Tensor = convolve(work, weight, stride=2, padding=1, groups=x.shape[1])
    return output.to(x.dtype)


def groups_of(channels: int) -> int:
    """Groups of a 3x3 convolution: the most that divide `channels` into groups of at least 16."""
    return next(n for n in range(max(channels // _GROUP, 1), 0, -1) if channels % n == 0)


def stage_widths(size: int, width: int, architecture: str) -> tuple[int, list[int]]:
    """Side of the smallest map, and the channels at every resolution from there up to the images'."""
    side, steps = halvings(size, architecture)
    return side, [max(width, min(width * 2**step, _MAX_WIDTH)) for step in reversed(range(steps + 1))]


def _blocks(width: int, depth: int, stages: int) -> list[nn.Module]:
    return [Bottleneck(width, depth * stages) for _ in range(depth)]


def _transition(before: int, after: int) -> list[nn.Module]:
    return [_Linear(nn.Conv2d(before, after, 1, bias=False))] if before != after else []


def _g(config: TrialConfig, shape: ImageShape, z_in: int) -> nn.Module:
    side, widths = stage_widths(shape.size, config.width_g, config.architecture)
    layers: list[nn.Module] = [_Linear(nn.Linear(z_in, widths[0], bias=False)), _Basis(widths[0], side)]
    layers += _blocks(widths[0], config.depth_g, len(widths))
    for wide, narrow in zip(widths, widths[1:], strict=False):
        layers += [*_transition(wide, narrow), nn.Upsample(scale_factor=2, mode="bilinear")]
        layers += _blocks(narrow, config.depth_g, len(widths))
    return nn.Sequential(*layers, _Linear(nn.Conv2d(widths[-1], shape.channels, 1, bias=False)))


def _d(config: TrialConfig, shape: ImageShape) -> tuple[nn.Module, int]:
    side, widths = stage_widths(shape.size, config.width_d, config.architecture)
    widths = widths[::-1]
    layers: list[nn.Module] = [_Linear(nn.Conv2d(shape.channels, widths[0], 1, bias=False))]
    for narrow, wide in zip(widths, widths[1:], strict=False):
        layers += [*_blocks(narrow, config.depth_d, len(widths)), Downsample(), *_transition(narrow, wide)]
    layers += _blocks(widths[-1], config.depth_d, len(widths))
    basis = nn.Conv2d(widths[-1], widths[-1], side, groups=widths[-1], bias=False)
    return nn.Sequential(*layers, _Linear(basis), nn.Flatten()), widths[-1]


R3GAN = Architecture(_g, _d)
