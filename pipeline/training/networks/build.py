"""Generators and discriminators, and the running average of a generator's weights.

Owns: `build`: a family of ours (`families`) or a pair of the user's (`own`), conditional or not (in G an
embedding or batch norm, in D a projection: Miyato & Koyama 2018), and the way from a generator's output
to bytes. Refuses: losses, training.

Shapes: N images, C channels, H = W = size, Z = z_dim, K classes (0 = unlabelled).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import TrialConfig
from pipeline.errors import ConfigError
from pipeline.training.networks import custom
from pipeline.training.networks.architectures import (
    ARCHITECTURES,
    initialise,
    normalise_spectrally,
    normalises_by_class,
)
from pipeline.training.networks.blocks import EMBEDDING_DIM, Discriminator, Generator, ImageShape
from pipeline.training.networks.custom import is_custom
from pipeline.training.networks.strided import speed_up_strided


def build_networks(config: TrialConfig, shape: ImageShape) -> tuple[Generator, Discriminator]:
    """Make G and D for a trial, freshly initialised from torch's global random state.

    Raises:
        ConfigError: `conditional` on unlabelled images, a size the family cannot draw, or networks of
            the user's own that cannot be had.
    """
    classes = shape.classes if config.conditional else 0
    if config.conditional and not shape.classes:
        raise ConfigError(
            "conditional = true needs labelled images",
            seen="images without labels",
            fix="set conditional = false, or give class sub-folders or labels",
        )
    spectral = config.norm_d == "spectral"
    if is_custom(config.architecture):
        generator, discriminator = custom.build_custom(config, shape, classes)
    else:
        generator, discriminator = _of_family(config, shape, classes)
        initialise(generator)
        initialise(discriminator, identity=not spectral)  # a weight of zeros has no largest singular value
    for network in (generator, discriminator):
        speed_up_strided(network)
    if spectral:
        normalise_spectrally(discriminator)
    return generator, discriminator


def check_networks(config: TrialConfig, shape: ImageShape) -> Generator:
    """Build a trial's networks once to see that they can be; the user's own are tried on two images.

    Raises:
        ConfigError: they cannot be, or draw and judge in another shape or range than they must.
    """
    generator, discriminator = build_networks(config, shape)
    if is_custom(config.architecture):
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
            custom.check_shapes(generator, discriminator, config.architecture, shape)
    return generator


def to_uint8(images: Tensor) -> Tensor:
    """(N,C,H,W) in [-1, 1] -> uint8 (N,H,W,C), rounded as StyleGAN does before it measures FID."""
    return (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def parameters_of(module: nn.Module) -> int:
    """Number of trained weights."""
    return sum(p.numel() for p in module.parameters())


def _of_family(config: TrialConfig, shape: ImageShape, classes: int) -> tuple[Generator, Discriminator]:
    make_g, make_d = ARCHITECTURES[config.architecture]
    embed = bool(classes) and not normalises_by_class(config)
    body_g = make_g(config, shape, config.z_dim + (EMBEDDING_DIM if embed else 0))
    body_d, features = make_d(config, shape)
    generator = Generator(body_g, z_dim=config.z_dim, classes=classes, embed=embed)
    return generator, Discriminator(body_d, features=features, classes=classes)
