"""The small built-in architectures, and what all share: weight initialisation and spectral normalisation.

Here are `mlp`, `dcgan` (Radford et al. 2016) and `resnet` (residual without normalisation, after R3GAN, Huang
et al. 2024); `r3gan` and `fastgan` have a file each. D is made conditional in
`pipeline.training.networks.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.config import TrialConfig
from pipeline.tables import NETWORKS
from pipeline.training.networks.blocks import ClassNorm, ImageShape, OwnInitialisation, Stack
from pipeline.training.networks.sizes import halvings

SLOPE = 0.2
"""Slope of all leaky rectifiers below 0."""
HE_GAIN_SQUARED = 2 / (1 + SLOPE**2)
"""Of weights before a leaky rectifier, so that the signal keeps its scale (He et al. 2015)."""
_MAX_WIDENING = 8  # channels double with each halving of the resolution, up to this factor


@dataclass(frozen=True)
class Architecture:
    """The bodies of G and D.

    g: (config, shape, length of G's input) -> body of G. d: (config, shape) -> body of D, number of its
    output features.
    """

    g: Callable[[TrialConfig, ImageShape, int], nn.Module]
    d: Callable[[TrialConfig, ImageShape], tuple[nn.Module, int]]


def uses_class_norm(config: TrialConfig) -> bool:
    """Whether G is conditioned by class-conditional batch norm; otherwise by an embedding beside z."""
    has_norm = config.norm_g == "batch" and NETWORKS[config.architecture].class_norm
    return config.conditional and config.condition_g == "batchnorm" and has_norm


def _mlp_g(config: TrialConfig, shape: ImageShape, z_in: int) -> nn.Module:
    layers: list[nn.Module] = []
    width = z_in
    for _ in range(config.depth_g):
        layers.append(nn.Linear(width, config.width_g))
        if config.norm_g == "batch":
            layers.append(_norm_g(config, shape, nn.BatchNorm1d)(config.width_g))
        layers.append(nn.LeakyReLU(SLOPE))
        width = config.width_g
    image = (shape.channels, shape.size, shape.size)
    pixels = shape.channels * shape.size**2
    return Stack(*layers, nn.Linear(width, pixels), nn.Unflatten(1, image))


def _mlp_d(config: TrialConfig, shape: ImageShape) -> tuple[nn.Module, int]:
    layers: list[nn.Module] = [nn.Flatten()]
    width = shape.channels * shape.size**2
    for _ in range(config.depth_d):
        layers.append(nn.Linear(width, config.width_d))
        if config.norm_d == "batch":
            layers.append(nn.BatchNorm1d(config.width_d))
        if config.norm_d == "layer":
            layers.append(nn.LayerNorm(config.width_d))
        layers.append(nn.LeakyReLU(SLOPE))
        width = config.width_d
    return nn.Sequential(*layers), width


def _dcgan_g(config: TrialConfig, shape: ImageShape, z_in: int) -> nn.Module:
    base, widths = _pyramid(shape.size, config.width_g, config.architecture)
    norm = _norm_g(config, shape, nn.BatchNorm2d)
    layers = [*smallest_map(z_in, widths[0], base), norm(widths[0]), nn.ReLU()]
    for wide, narrow in zip(widths, widths[1:], strict=False):
        layers += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1), norm(narrow), nn.ReLU()]
        for _ in range(config.depth_g - 1):
            layers += [nn.Conv2d(narrow, narrow, 3, 1, 1), norm(narrow), nn.ReLU()]
    return Stack(*layers, nn.ConvTranspose2d(widths[-1], shape.channels, 4, 2, 1))


def _dcgan_d(config: TrialConfig, shape: ImageShape) -> tuple[nn.Module, int]:
    base, widths = _pyramid(shape.size, config.width_d, config.architecture)
    norm = norm_of_d(config.norm_d)
    widths = widths[::-1]
    layers: list[nn.Module] = [nn.Conv2d(shape.channels, widths[0], 4, 2, 1), nn.LeakyReLU(SLOPE)]
    for narrow, wide in zip(widths, widths[1:], strict=False):
        for _ in range(config.depth_d - 1):
            layers += [nn.Conv2d(narrow, narrow, 3, 1, 1), norm(narrow), nn.LeakyReLU(SLOPE)]
        layers += [nn.Conv2d(narrow, wide, 4, 2, 1), norm(wide), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Flatten()), widths[-1] * base * base


class _Residual(OwnInitialisation):
    """x + conv(act(conv(act(x)))); initialised as the identity, except under spectral normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, 1, 1)
        self.last = nn.Conv2d(width, width, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(nn.functional.leaky_relu(x, SLOPE))
        change: Tensor = self.last(nn.functional.leaky_relu(inner, SLOPE))
        return x + change

    def initialise(self, identity: bool) -> None:
        if identity:
            nn.init.zeros_(self.last.weight)


def _resnet_g(config: TrialConfig, shape: ImageShape, z_in: int) -> nn.Module:
    base, widths = _pyramid(shape.size, config.width_g, config.architecture)
    layers = smallest_map(z_in, widths[0], base)
    for wide, narrow in zip(widths, [*widths[1:], widths[-1]], strict=True):
        layers += [_Residual(wide) for _ in range(config.depth_g)]
        layers += [nn.Conv2d(wide, narrow, 1), nn.Upsample(scale_factor=2, mode="bilinear")]
    layers += [nn.LeakyReLU(SLOPE), nn.Conv2d(widths[-1], shape.channels, 3, 1, 1)]
    return nn.Sequential(*layers)


def _resnet_d(config: TrialConfig, shape: ImageShape) -> tuple[nn.Module, int]:
    base, widths = _pyramid(shape.size, config.width_d, config.architecture)
    widths = widths[::-1]
    layers: list[nn.Module] = [nn.Conv2d(shape.channels, widths[0], 3, 1, 1), nn.AvgPool2d(2)]
    for narrow, wide in zip(widths, widths[1:], strict=False):
        layers += [_Residual(narrow) for _ in range(config.depth_d)]
        layers += [nn.AvgPool2d(2), nn.Conv2d(narrow, wide, 1)]
    layers += [_Residual(widths[-1]) for _ in range(config.depth_d)]
    layers += [nn.LeakyReLU(SLOPE), nn.Flatten()]
    return nn.Sequential(*layers), widths[-1] * base * base


MLP = Architecture(_mlp_g, _mlp_d)
DCGAN = Architecture(_dcgan_g, _dcgan_d)
RESNET = Architecture(_resnet_g, _resnet_d)


def _pyramid(size: int, width: int, architecture: str) -> tuple[int, list[int]]:
    """Side of the smallest feature map (4 to 7) and the channels from there up to half the image size."""
    base, steps = halvings(size, architecture)
    return base, doubled_widths(width, steps)


def doubled_widths(width: int, count: int) -> list[int]:
    """Channels of `count` resolutions, the lowest first: doubled with each halving, up to 8 times."""
    return [width * min(2**step, _MAX_WIDENING) for step in reversed(range(count))]


def smallest_map(z_in: int, width: int, side: int) -> list[nn.Module]:
    return [nn.Linear(z_in, width * side**2), nn.Unflatten(1, (width, side, side))]


def _norm_g(
    config: TrialConfig, shape: ImageShape, kind: type[nn.BatchNorm1d] | type[nn.BatchNorm2d]
) -> Callable[[int], nn.Module]:
    if config.norm_g == "none":
        return nn.Identity
    if uses_class_norm(config):
        return lambda width: ClassNorm(kind(width, affine=False), shape.classes)
    return kind


def norm_of_d(name: str) -> Callable[[int], nn.Module]:
    if name == "batch":
        return nn.BatchNorm2d
    if name == "layer":
        return lambda width: nn.GroupNorm(1, width)
    return nn.Identity  # spectral norm is of the weights


def initialise_weights(network: nn.Module, identity: bool = True) -> None:
    """Draw initial weights (He et al. 2015); identity: residual blocks start as the identity."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            draw_weights(module, HE_GAIN_SQUARED)
    for module in network.modules():
        if isinstance(module, OwnInitialisation):
            module.initialise(identity)


def draw_weights(module: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, gain_squared: float) -> None:
    """Normal weights of variance gain^2 / fan-in, biases of 0.

    The fan-in of a transposed convolution counts the inputs of one output pixel.
    """
    fan_in = module.weight[0].numel()
    if isinstance(module, nn.ConvTranspose2d):
        taps = (module.kernel_size[0] // module.stride[0]) ** 2
        fan_in = module.in_channels * taps
    nn.init.normal_(module.weight, std=(gain_squared / fan_in) ** 0.5)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def apply_spectral_norm(network: nn.Module) -> None:
    """Parametrise all weights as divided by their largest singular value (Miyato et al. 2018)."""
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            spectral_norm(module)
