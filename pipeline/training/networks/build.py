"""Building G and D of a trial, from a built-in architecture or custom networks, conditional or not.

A conditional G has an embedding or class-conditional batch norm, a conditional D a projection (Miyato &
Koyama 2018). Shapes: N images, C channels, H = W = size, Z = z_dim, K classes (0 = unlabelled).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import TrialConfig
from pipeline.errors import ConfigError
from pipeline.tables import NETWORKS
from pipeline.training.networks import custom
from pipeline.training.networks.architectures import (
    Architecture,
    apply_spectral_norm,
    initialise_weights,
    uses_class_norm,
)
from pipeline.training.networks.blocks import EMBEDDING_DIM, Discriminator, Generator, ImageShape
from pipeline.training.networks.self_supervision import SelfSupervisedBody, SelfSupervisedDiscriminator


def build_networks(config: TrialConfig, shape: ImageShape) -> tuple[Generator, Discriminator]:
    """Make G and D of a trial, initialised from torch's global random state.

    Raises:
        ConfigError: `conditional` with unlabelled images, a size that the architecture cannot draw, or custom
            networks that cannot be made.
    """
    if config.conditional and not shape.classes:
        raise ConfigError(
            "conditional = true, but the images have no labels",
            rule="a conditional GAN needs labelled images",
            fix="set conditional = false, or give class sub-folders or labels",
        )
    classes = shape.classes if config.conditional else 0
    spectral = config.norm_d == "spectral"
    if NETWORKS.is_user_code(config.architecture):
        generator, discriminator = custom.build_custom(config, shape, classes)
    else:
        generator, discriminator = _build_builtin(config, shape, classes)
        initialise_weights(generator)
        initialise_weights(discriminator, identity=not spectral)  # zero weights cannot be normalised
    if spectral:
        apply_spectral_norm(discriminator)
    return generator, discriminator


def check_networks(config: TrialConfig, shape: ImageShape) -> Generator:
    """Build a trial's networks once to check them; custom ones are also run on two images.

    Returns G. Raises:
        ConfigError: they cannot be made, or their outputs have a wrong shape or range.
    """
    generator, discriminator = build_networks(config, shape)
    if NETWORKS.is_user_code(config.architecture):
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
            custom.check_shapes(generator, discriminator, config.architecture, shape)
    return generator


def to_uint8(images: Tensor) -> Tensor:
    """(N,C,H,W) in [-1, 1] -> uint8 (N,H,W,C), rounded as StyleGAN does for its FID."""
    return (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _build_builtin(config: TrialConfig, shape: ImageShape, classes: int) -> tuple[Generator, Discriminator]:
    architecture: Architecture = NETWORKS.load(config.architecture)
    embed = bool(classes) and not uses_class_norm(config)
    body_g = architecture.g(config, shape, config.z_dim + (EMBEDDING_DIM if embed else 0))
    body_d, features = architecture.d(config, shape)
    generator = Generator(body_g, z_dim=config.z_dim, classes=classes, embed=embed)
    if isinstance(body_d, SelfSupervisedBody):
        return generator, SelfSupervisedDiscriminator(body_d, features=features, classes=classes)
    return generator, Discriminator(body_d, features=features, classes=classes)
