"""Custom losses and penalties: `module:name`, tried once before a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.tables import LOSSES, PENALTIES
from pipeline.training.losses import load_loss
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.custom import describe
from pipeline.user_code import run

_IMAGES = 4


def check_loss(name: str) -> None:
    """Try a loss of the user's own on a few logits; one of the table is not tried.

    Raises:
        ConfigError: it cannot be loaded, fails, or does not return two finite scalars with gradients.
    """
    if not LOSSES.is_user_code(name):
        return
    real = torch.linspace(-1, 2, _IMAGES, requires_grad=True)
    fake = torch.linspace(1, -2, _IMAGES, requires_grad=True)
    found = LOSSES.load(name)
    if not hasattr(found, "d"):
        made = run(f"{name} fails for logits of shape ({_IMAGES},)", name, lambda: found(real, fake))
        if not isinstance(made, tuple) or len(made) != 2:
            rule, fix = "it must return what D and what G minimises", "end it with: return loss_d, loss_g"
            raise ConfigError(f"{name} returned {{seen}}", rule=rule, seen=describe(made), fix=fix)
    loss = load_loss(name)
    _check_scalar(f"{name}: the loss of D", name, lambda: loss.d(real, fake), [real, fake])
    _check_scalar(f"{name}: the loss of G", name, lambda: loss.g(real.detach(), fake), [fake])


def check_penalty(name: str, shape: ImageShape) -> None:
    """Try a penalty of the user's own on D(x) = w.x + w.x^2, whose gradient depends on x and on w.

    Raises:
        ConfigError: it cannot be loaded, fails, or does not return a finite scalar with a gradient.
    """
    if not PENALTIES.is_user_code(name):
        return
    size = (_IMAGES, shape.channels, shape.size, shape.size)
    mix = torch.linspace(0, 1, _IMAGES * shape.channels * shape.size**2).view(size)
    real, fake = 2 * mix - 1, (1 - 2 * mix).sin()
    weight = torch.full(size[1:], 0.1, requires_grad=True)

    def critic(images: Tensor) -> Tensor:
        return (weight * (images + images.square())).flatten(1).sum(1)

    penalty = PENALTIES.load(name)
    _check_scalar(name, name, lambda: penalty(critic, real, fake, mix), [weight])


def _check_scalar(what: str, name: str, compute: Callable[[], object], inputs: Sequence[Tensor]) -> None:
    """ConfigError where the result is no finite scalar, or its gradient does not reach all `inputs`."""
    value = run(f"{what} fails", name, compute)
    if not isinstance(value, Tensor) or value.shape or not value.is_floating_point():
        rule = "it must be a float scalar"
        raise ConfigError(f"{what} is {{seen}}", rule=rule, seen=describe(value), fix="end it with .mean()")
    gradients: list[Tensor] = []
    if value.requires_grad:
        found = run(f"{what} fails", name, lambda: torch.autograd.grad(value, inputs, allow_unused=True))
        gradients = [gradient for gradient in found if gradient is not None]
    if len(gradients) < len(inputs):
        rule = "its gradient must reach D's logits, and through them its weights"
        raise ConfigError(
            f"{what} has no gradient", rule=rule, fix="leave out .detach(), .item() and no_grad"
        )
    if not all(number.isfinite().all() for number in (value, *gradients)):
        what += " is {seen}, or its gradient is not finite"
        raise ConfigError(what, seen=value.item(), fix="avoid log, sqrt and division of what may be 0")
