"""FastGAN's networks for few images (Liu et al. 2021).

G: nearest upsampling, 3x3 convolutions, batch norm and gated linear units. Skip-layer excitation (SLE) scales
the channels of a large map by what a small one holds. From 128 px on the pairs are the published ones: 4->64,
8->128, 16->256 (a ratio of 16). At 64 px they are 4->32 and 8->64, at 32 px 4->32 (a ratio of 8); smaller
images have one pair, the smallest map and the largest. D: residual blocks with stride 2, and decoders that
reconstruct the reals.

Not as published: no noise is added in G, as images are a function of z; one logit of all features instead of
a map of logits; reconstructions are compared by the L1 distance, as LPIPS needs downloaded weights, and end
without tanh, as augmented images leave [-1, 1]. D has `norm_d`, theirs both batch and spectral norm.
"""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.config import TrialConfig
from pipeline.training.networks.architectures import (
    SLOPE,
    Architecture,
    doubled_widths,
    draw_weights,
    norm_of_d,
    smallest_map,
)
from pipeline.training.networks.blocks import ImageShape, OwnInitialisation
from pipeline.training.networks.self_supervision import Decoders, SelfSupervisedBody
from pipeline.training.networks.sizes import halvings

_GLU_GAIN_SQUARED = 3.0  # a gated linear unit keeps a third of a signal's mean square


class Gated(OwnInitialisation):
    """A layer, batch norm and a gated linear unit: the first half of the channels times sigmoid(the second).

    layer: gives twice the channels. width: channels of the output.
    """

    def __init__(self, layer: nn.Module, width: int, batch_norm: bool) -> None:
        super().__init__()
        self.layer = layer
        self.norm = nn.BatchNorm2d(2 * width) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        # The gradient of torch's glu is not in channels_last memory, which makes all before it slow on a CPU.
        signal, gate = self.norm(self.layer(x)).chunk(2, dim=1)
        gated: Tensor = signal * gate.sigmoid()
        return gated

    def initialise(self, identity: bool) -> None:
        for layer in self.layer.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                draw_weights(layer, _GLU_GAIN_SQUARED)


class Excitation(nn.Module):
    """Scales the channels of `large` (N,large,H,W) by numbers in (0, 1) from `small` (N,small,h,w)."""

    def __init__(self, small: int, large: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(small, large, 4),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(large, large, 1),
            nn.Sigmoid(),
        )

    def forward(self, large: Tensor, small: Tensor) -> Tensor:
        scaled: Tensor = large * self.weigh(small)
        return scaled


class _Generator(nn.Module):
    """z (N,z_in) -> (N,C,H,W). stages: each makes the next map; excitations: of map i + skip by map i."""

    def __init__(
        self, first: nn.Module, stages: list[nn.Module], excitations: list[Excitation], last: nn.Module
    ) -> None:
        super().__init__()
        self.first, self.last = first, last
        self.stages, self.excitations = nn.ModuleList(stages), nn.ModuleList(excitations)

    def forward(self, z: Tensor) -> Tensor:
        maps: list[Tensor] = [self.first(z)]
        skip = len(self.stages) + 1 - len(self.excitations)
        for index, stage in enumerate(self.stages, start=1):
            features = stage(maps[-1])
            if index >= skip:
                features = self.excitations[index - skip](features, maps[index - skip])
            maps.append(features)
        images: Tensor = self.last(maps[-1])
        return images


class _Shrink(nn.Module):
    """(N,narrow,H,W) -> (N,wide,H/2,W/2): the mean of convolutions with stride 2 and of an averaging path."""

    def __init__(self, narrow: int, wide: int, config: TrialConfig) -> None:
        super().__init__()
        norm = norm_of_d(config.norm_d)
        layers = [nn.Conv2d(narrow, wide, 4, 2, 1), norm(wide), nn.LeakyReLU(SLOPE)]
        for _ in range(config.depth_d):
            layers += [nn.Conv2d(wide, wide, 3, 1, 1), norm(wide), nn.LeakyReLU(SLOPE)]
        self.main = nn.Sequential(*layers)
        self.direct = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(narrow, wide, 1), norm(wide), nn.LeakyReLU(SLOPE)
        )

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = (self.main(x) + self.direct(x)) / 2
        return mean


def _widths(size: int, width: int, architecture: str) -> tuple[int, list[int]]:
    """Side of the smallest map, and the channels at every resolution from there up to the images'."""
    side, steps = halvings(size, architecture)
    return side, doubled_widths(width, steps + 1)


def _skip(stages: int) -> int:
    """Doublings of the resolution that an excitation skips."""
    return 4 if stages >= 5 else min(stages, 3)


def _conv(narrow: int, wide: int) -> nn.Conv2d:
    return nn.Conv2d(narrow, wide, 3, 1, 1)


def _g(config: TrialConfig, shape: ImageShape, z_in: int) -> nn.Module:
    side, widths = _widths(shape.size, config.width_g, config.architecture)
    norm = config.norm_g == "batch"
    first = Gated(nn.Sequential(*smallest_map(z_in, 2 * widths[0], side)), widths[0], norm)
    stages: list[nn.Module] = []
    for wide, narrow in zip(widths, widths[1:], strict=False):
        inputs = [wide, *[narrow] * (config.depth_g - 1)]
        stages.append(
            nn.Sequential(
                nn.Upsample(scale_factor=2), *(Gated(_conv(n, 2 * narrow), narrow, norm) for n in inputs)
            )
        )
    skip = _skip(len(stages))
    excitations = [Excitation(small, large) for small, large in zip(widths, widths[skip:], strict=False)]
    return _Generator(first, stages, excitations, _conv(widths[-1], shape.channels))


def _d(config: TrialConfig, shape: ImageShape) -> tuple[nn.Module, int]:
    side, widths = _widths(shape.size, config.width_d, config.architecture)
    widths = widths[::-1]
    first = nn.Sequential(_conv(shape.channels, widths[0]), nn.LeakyReLU(SLOPE))
    shrinks = (_Shrink(narrow, wide, config) for narrow, wide in zip(widths, widths[1:], strict=False))
    small = max(len(widths) - 2, 1)  # the map of twice the smallest side
    whole, part = (_decoder(widths[index], widths[:small], shape.channels) for index in (small, small - 1))
    return SelfSupervisedBody([first, *shrinks], Decoders(whole, part, small)), widths[-1] * side**2


def _decoder(width: int, widths: list[int], channels: int) -> nn.Module:
    """(N,width,h,w) -> (N,channels,H,W); doubles the resolution once less than there are `widths`.

    Half as wide as D, and with batch norm in any case, as published: it sees reals only.
    """
    layers: list[nn.Module] = []
    for narrow in (max(wide // 2, 1) for wide in reversed(widths[1:])):
        layers += [nn.Upsample(scale_factor=2), Gated(_conv(width, 2 * narrow), narrow, batch_norm=True)]
        width = narrow
    return nn.Sequential(*layers, _conv(width, channels))


FASTGAN = Architecture(_g, _d)
