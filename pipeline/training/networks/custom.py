"""Custom networks: `architecture = "module:function"`; called, wrapped and checked here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.config import TrialConfig
from pipeline.errors import ConfigError
from pipeline.tables import NETWORKS
from pipeline.training.networks.blocks import Discriminator, Generator, ImageShape
from pipeline.user_code import run

Maker = Callable[[TrialConfig, ImageShape], tuple[nn.Module, nn.Module]]
"""function(config, shape) -> (G, D), initialised from torch's global random state.

Unconditional: G(z (N,Z)) -> (N,C,H,W) in [-1, 1], D(images (N,C,H,W)) -> logits (N,).
With config.conditional: G(z, labels (N,) int64) and D(images, labels).
"""


class CustomGenerator(Generator):
    """The interface of `Generator` for a custom G, which bounds its images itself."""

    def __init__(self, body: nn.Module, *, z_dim: int, classes: int) -> None:
        super().__init__(body, z_dim=z_dim, classes=classes, embed=False)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        images: Tensor = self.body(z, labels) if self.classes else self.body(z)
        return images


class CustomDiscriminator(Discriminator):
    """The interface of `Discriminator` for a custom D, which has its own head."""

    def __init__(self, body: nn.Module, *, classes: int) -> None:
        nn.Module.__init__(self)
        self.body, self.classes = body, classes

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.body(images, labels) if self.classes else self.body(images)
        return logits


def build_custom(config: TrialConfig, shape: ImageShape, classes: int) -> tuple[Generator, Discriminator]:
    """Call the user's function and wrap the two networks that it returns.

    Raises:
        ConfigError: with the error and the line in the user's file.
    """
    name = config.architecture
    maker: Maker = NETWORKS.load(name)
    given = replace(shape, classes=classes)
    made: object = run(f"{name} fails", name, lambda: maker(config, given))
    if not isinstance(made, tuple) or len(made) != 2 or not all(isinstance(n, nn.Module) for n in made):
        rule, fix = "it must return (G, D), two torch modules", "end it with: return generator, discriminator"
        raise ConfigError(f"{name} returned {{seen}}", rule=rule, seen=describe(made), fix=fix)
    return CustomGenerator(made[0], z_dim=config.z_dim, classes=classes), CustomDiscriminator(
        made[1], classes=classes
    )


@torch.no_grad()
def check_shapes(generator: Generator, discriminator: Discriminator, name: str, shape: ImageShape) -> None:
    """Run custom networks on two images and check the outputs.

    Raises:
        ConfigError: a wrong shape, type or range, values not finite, no weights, or an exception in the
            user's code.
    """
    classes = generator.classes
    labels = torch.arange(2) % classes if classes else None
    z = torch.randn(2, generator.z_dim)
    problem = f"{name}: G fails for z of shape (2, {generator.z_dim})"
    images = run(problem, name, lambda: generator(z, labels))
    expected = (2, shape.channels, shape.size, shape.size)
    _check_shape(images, expected, f"{name}: G", f"build it for shape.size = {shape.size}")
    low, high = images.aminmax()
    if not (low >= -1 and high <= 1):  # also refuses NaN
        problem, seen = f"{name}: G's images have values in {{seen}}", f"[{low:.3g}, {high:.3g}]"
        raise ConfigError(problem, rule="they must lie in [-1, 1]", seen=seen, fix="end G with nn.Tanh()")
    problem = f"{name}: D fails for images of shape {expected}"
    scores = run(problem, name, lambda: discriminator(images.float(), labels))
    _check_shape(scores, (2,), f"{name}: D", "give one logit per image: end D with nn.Flatten(0)")
    if not scores.isfinite().all():
        problem, seen = f"{name}: D's logits are {{seen}}", str(scores.tolist())
        raise ConfigError(problem, rule="they must be finite", seen=seen, fix="check its weights")
    for letter, network in (("G", generator), ("D", discriminator)):
        if not any(p.requires_grad for p in network.parameters()):
            raise ConfigError(f"{name}: {letter} has no weights to train", fix="register its layers")


def _check_shape(output: object, expected: tuple[int, ...], network: str, fix: str) -> None:
    if not isinstance(output, Tensor) or tuple(output.shape) != expected or not output.is_floating_point():
        rule = f"two images need a float tensor of shape {expected}"
        raise ConfigError(f"{network} returned {{seen}}", rule=rule, seen=describe(output), fix=fix)


def describe(value: object) -> str:
    """What the user's code returned, for a message."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.")
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {', '.join(type(item).__name__ for item in value) or 'nothing'}"
    return type(value).__name__
