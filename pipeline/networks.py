"""Generators and discriminators, and the running average of a generator's weights.

Owns: the families `mlp`, `dcgan` (Radford et al. 2016), `resnet` (normalisation-free residual, after
R3GAN, Huang et al. 2024), class conditioning (embedding in G, projection in D: Miyato & Koyama 2018),
`Ema`, and the way from a generator's output to bytes. Refuses: losses, training.

Shapes: N images, C channels, H = W = size, Z = z_dim, K classes (0 = unlabelled).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.config import TrialConfig
from pipeline.errors import ConfigError

EMBEDDING_DIM = 32
_SLOPE = 0.2
_MAX_WIDENING = 8  # channels double per halving of the resolution up to this factor


@dataclass(frozen=True)
class ImageShape:
    """What a network must know of its images. classes: 0 = unlabelled."""

    size: int
    channels: int
    classes: int = 0


class Generator(nn.Module):
    """z (N,Z) float32 [and labels (N,) int64] -> images (N,C,H,W) in [-1, 1]."""

    def __init__(self, body: nn.Module, *, z_dim: int, classes: int) -> None:
        super().__init__()
        self.z_dim, self.classes = z_dim, classes
        self.embed = nn.Embedding(classes, EMBEDDING_DIM) if classes else None
        self.body = body

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.embed is not None and labels is not None:
            z = torch.cat([z, self.embed(labels)], dim=1)
        return torch.tanh(self.body(z))


class Discriminator(nn.Module):
    """images (N,C,H,W) in [-1, 1] [and labels (N,) int64] -> logits (N,)."""

    def __init__(self, body: nn.Module, *, features: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(features, 1)
        self.project = nn.Embedding(classes, features) if classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        features: Tensor = self.body(images)
        logits: Tensor = self.head(features).squeeze(1)
        if self.project is not None and labels is not None:
            # scaled like the head: an embedding drawn from N(0, 1) would drown it
            scale = features.shape[1] ** -0.5
            logits = logits + (self.project(labels) * features).sum(dim=1) * scale
        return logits


def build(config: TrialConfig, shape: ImageShape) -> tuple[Generator, Discriminator]:
    """Make G and D for a trial, freshly initialised from torch's global random state.

    Raises:
        ConfigError: `conditional` on unlabelled images, or a size the family cannot draw.
    """
    classes = shape.classes if config.conditional else 0
    if config.conditional and not shape.classes:
        raise ConfigError(
            "conditional = true needs labelled images",
            seen="images without labels",
            fix="set conditional = false, or give class sub-folders or labels",
        )
    z_in = config.z_dim + (EMBEDDING_DIM if classes else 0)
    make_g, make_d = _FAMILIES[config.architecture]
    body_d, features = make_d(config, shape)
    generator = Generator(make_g(config, shape, z_in), z_dim=config.z_dim, classes=classes)
    discriminator = Discriminator(body_d, features=features, classes=classes)
    _initialise(generator)
    spectral = config.norm_d == "spectral"
    _initialise(discriminator, identity=not spectral)  # a weight of zeros has no largest singular value
    if spectral:
        _normalise_spectrally(discriminator)
    return generator, discriminator


def to_uint8(images: Tensor) -> Tensor:
    """(N,C,H,W) in [-1, 1] -> uint8 (N,H,W,C), rounded as StyleGAN does before it measures FID."""
    return (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def parameters_of(module: nn.Module) -> int:
    """Number of trained weights."""
    return sum(p.numel() for p in module.parameters())


class Ema:
    """Exponential moving average of a generator's weights with its half-life in kimg.

    The half-life grows with training (at most 5 % of the images shown so far), so that the random
    start is forgotten early (StyleGAN2-ADA). Buffers (batch statistics) are averaged as well: those
    of the live network belong to other weights. A half-life of 0 copies.
    """

    _RAMP = 0.05

    def __init__(self, live: Generator, halflife_kimg: float) -> None:
        self.halflife_nimg = halflife_kimg * 1000
        self.generator = copy.deepcopy(live).eval().requires_grad_(False)
        self._ours, self._live = _floats(self.generator), _floats(live)

    @torch.no_grad()
    def update(self, images: int, shown: int) -> None:
        """Blend in the live weights after `images` more reals, `shown` in all."""
        halflife = min(self.halflife_nimg, shown * self._RAMP)
        keep = 0.5 ** (images / halflife) if halflife > 0 else 0.0
        torch._foreach_lerp_(self._ours, self._live, 1.0 - keep)


def _floats(module: nn.Module) -> list[Tensor]:
    tensors = [p.data for p in module.parameters()]
    return tensors + [b for b in module.buffers() if b.is_floating_point()]


# ---- families: (config, shape, length of the input) -> body of G; (config, shape) -> body of D, features


def _mlp_g(config: TrialConfig, shape: ImageShape, z_in: int) -> nn.Module:
    layers: list[nn.Module] = []
    width = z_in
    for _ in range(config.depth_g):
        layers.append(nn.Linear(width, config.width_g))
        if config.norm_g == "batch":
            layers.append(nn.BatchNorm1d(config.width_g))
        layers.append(nn.LeakyReLU(_SLOPE))
        width = config.width_g
    image = (shape.channels, shape.size, shape.size)
    pixels = shape.channels * shape.size**2
    return nn.Sequential(*layers, nn.Linear(width, pixels), nn.Unflatten(1, image))


def _mlp_d(config: TrialConfig, shape: ImageShape) -> tuple[nn.Module, int]:
    layers: list[nn.Module] = [nn.Flatten()]
    width = shape.channels * shape.size**2
    for _ in range(config.depth_d):
        layers.append(nn.Linear(width, config.width_d))
        if config.norm_d == "batch":
            layers.append(nn.BatchNorm1d(config.width_d))
        if config.norm_d == "layer":
            layers.append(nn.LayerNorm(config.width_d))
        layers.append(nn.LeakyReLU(_SLOPE))
        width = config.width_d
    return nn.Sequential(*layers), width


def _dcgan_g(config: TrialConfig, shape: ImageShape, z_in: int) -> nn.Module:
    base, widths = _pyramid(shape.size, config.width_g, config.architecture)
    norm = _norm2d(config.norm_g)
    layers: list[nn.Module] = [
        nn.Linear(z_in, widths[0] * base * base),
        nn.Unflatten(1, (widths[0], base, base)),
        norm(widths[0]),
        nn.ReLU(),
    ]
    for wide, narrow in zip(widths, widths[1:], strict=False):
        layers += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1), norm(narrow), nn.ReLU()]
        for _ in range(config.depth_g - 1):
            layers += [nn.Conv2d(narrow, narrow, 3, 1, 1), norm(narrow), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], shape.channels, 4, 2, 1))


def _dcgan_d(config: TrialConfig, shape: ImageShape) -> tuple[nn.Module, int]:
    base, widths = _pyramid(shape.size, config.width_d, config.architecture)
    norm = _norm2d(config.norm_d)
    widths = widths[::-1]
    layers: list[nn.Module] = [nn.Conv2d(shape.channels, widths[0], 4, 2, 1), nn.LeakyReLU(_SLOPE)]
    for narrow, wide in zip(widths, widths[1:], strict=False):
        for _ in range(config.depth_d - 1):
            layers += [nn.Conv2d(narrow, narrow, 3, 1, 1), norm(narrow), nn.LeakyReLU(_SLOPE)]
        layers += [nn.Conv2d(narrow, wide, 4, 2, 1), norm(wide), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*layers, nn.Flatten()), widths[-1] * base * base


class _Residual(nn.Module):
    """x + conv(act(conv(act(x)))); unless spectral, the last starts at zero: the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, 1, 1)
        self.last = nn.Conv2d(width, width, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(nn.functional.leaky_relu(x, _SLOPE))
        change: Tensor = self.last(nn.functional.leaky_relu(inner, _SLOPE))
        return x + change


def _resnet_g(config: TrialConfig, shape: ImageShape, z_in: int) -> nn.Module:
    base, widths = _pyramid(shape.size, config.width_g, config.architecture)
    layers: list[nn.Module] = [
        nn.Linear(z_in, widths[0] * base * base),
        nn.Unflatten(1, (widths[0], base, base)),
    ]
    for wide, narrow in zip(widths, [*widths[1:], widths[-1]], strict=True):
        layers += [_Residual(wide) for _ in range(config.depth_g)]
        layers += [nn.Conv2d(wide, narrow, 1), nn.Upsample(scale_factor=2, mode="bilinear")]
    layers += [nn.LeakyReLU(_SLOPE), nn.Conv2d(widths[-1], shape.channels, 3, 1, 1)]
    return nn.Sequential(*layers)


def _resnet_d(config: TrialConfig, shape: ImageShape) -> tuple[nn.Module, int]:
    base, widths = _pyramid(shape.size, config.width_d, config.architecture)
    widths = widths[::-1]
    layers: list[nn.Module] = [nn.Conv2d(shape.channels, widths[0], 3, 1, 1), nn.AvgPool2d(2)]
    for narrow, wide in zip(widths, widths[1:], strict=False):
        layers += [_Residual(narrow) for _ in range(config.depth_d)]
        layers += [nn.AvgPool2d(2), nn.Conv2d(narrow, wide, 1)]
    layers += [_Residual(widths[-1]) for _ in range(config.depth_d)]
    layers += [nn.LeakyReLU(_SLOPE), nn.Flatten()]
    return nn.Sequential(*layers), widths[-1] * base * base


_FAMILIES: dict[
    str,
    tuple[
        Callable[[TrialConfig, ImageShape, int], nn.Module],
        Callable[[TrialConfig, ImageShape], tuple[nn.Module, int]],
    ],
] = {"mlp": (_mlp_g, _mlp_d), "dcgan": (_dcgan_g, _dcgan_d), "resnet": (_resnet_g, _resnet_d)}


def _pyramid(size: int, width: int, family: str) -> tuple[int, list[int]]:
    """Side of the smallest feature map (4 to 7) and the widths from there up to half the image."""
    base = size
    widths: list[int] = []
    while base % 2 == 0 and base > 7:
        base //= 2
        widths.append(width * min(2 ** len(widths), _MAX_WIDENING))
    if not 4 <= base <= 7 or not widths:
        raise ConfigError(
            f"{family} draws sizes 4, 5, 6 or 7 times a power of two (8, 16, 28, 32, 48, 64, ...)",
            seen=f"{size} px",
            fix="pass --image-size 32, or search architecture = 'mlp'",
        )
    return base, widths[::-1]


def _norm2d(name: str) -> Callable[[int], nn.Module]:
    table: dict[str, Callable[[int], nn.Module]] = {
        "none": lambda width: nn.Identity(),
        "spectral": lambda width: nn.Identity(),  # on the weights instead
        "batch": lambda width: nn.BatchNorm2d(width),
        "layer": lambda width: nn.GroupNorm(1, width),
    }
    return table[name]


def _initialise(network: nn.Module, identity: bool = True) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            _scale_to_fan_in(module)
    for module in network.modules():
        if identity and isinstance(module, _Residual):
            nn.init.zeros_(module.last.weight)


def _scale_to_fan_in(module: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """He et al. 2015. A transposed convolution's fan-in is what reaches one output pixel."""
    fan_in = module.weight[0].numel()
    if isinstance(module, nn.ConvTranspose2d):
        taps = (module.kernel_size[0] // module.stride[0]) ** 2
        fan_in = module.in_channels * taps
    nn.init.normal_(module.weight, std=(2 / (1 + _SLOPE**2) / fan_in) ** 0.5)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _normalise_spectrally(network: nn.Module) -> None:
    for module in list(network.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            spectral_norm(module)
