"""Adversarial losses and gradient penalties as pure functions of logits and images.

Penalties are not weighted here: gamma and the interval of lazy regularisation belong to the trainer.

Notation: r = D(real) (N,), f = D(G(z)) (N,). Every function returns a scalar to minimise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from pipeline.tables import LOSSES, PENALTIES

Critic = Callable[[Tensor], Tensor]
"""images (N,C,H,W) -> logits (N,), with the labels already bound."""

Penalty = Callable[[Critic, Tensor, Tensor, Tensor], Tensor]
"""(critic, real (N,C,H,W), fake (N,C,H,W), mix (N,C,H,W) uniform in [0, 1)) -> scalar."""


@dataclass(frozen=True)
class Loss:
    """The objectives `d(r, f)` of D and `g(r, f)` of G; in the latter r has no gradient.

    relative: whether the loss of G depends on r, which costs a pass of D.
    """

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor, Tensor], Tensor]
    relative: bool = False


def load_loss(name: str) -> Loss:
    """The loss of a row of `LOSSES`, or the user's own: with d and g as a `Loss`, or a function of both.

    Raises:
        ConfigError: the user's own cannot be loaded.
    """
    found = LOSSES.load(name)
    if hasattr(found, "d") and hasattr(found, "g"):
        return Loss(found.d, found.g, getattr(found, "relative", True))
    return Loss(d=lambda r, f: found(r, f)[0], g=lambda r, f: found(r, f)[1], relative=True)


def penalty_inputs(name: str) -> tuple[bool, bool]:
    """Whether `gradient_penalty_from_logits` gives a penalty, taken at (the reals, the fakes)."""
    row = PENALTIES.get(name)
    return (row.at_reals, row.at_fakes) if row else (False, False)


# Goodfellow et al. 2014, the zero-sum game: G minimises E log(1 - sigmoid(f)).
MINIMAX = Loss(
    d=lambda r, f: softplus(-r).mean() + softplus(f).mean(),
    g=lambda r, f: -softplus(f).mean(),
)
# Goodfellow et al. 2014, the variant used in practice: G maximises E log sigmoid(f).
NONSATURATING = Loss(d=MINIMAX.d, g=lambda r, f: softplus(-f).mean())
# Lim & Ye 2017; Miyato et al. 2018.
HINGE = Loss(
    d=lambda r, f: relu(1 - r).mean() + relu(1 + f).mean(),
    g=lambda r, f: -f.mean(),
)
# Mao et al. 2017, targets 1 and 0.
LSGAN = Loss(
    d=lambda r, f: 0.5 * (r - 1).square().mean() + 0.5 * f.square().mean(),
    g=lambda r, f: 0.5 * (f - 1).square().mean(),
)
# Arjovsky et al. 2017; needs a penalty to keep D Lipschitz.
WASSERSTEIN = Loss(d=lambda r, f: f.mean() - r.mean(), g=lambda r, f: -f.mean())
# Jolicoeur-Martineau 2019, paired as in R3GAN (Huang et al. 2024).
RELATIVISTIC = Loss(
    d=lambda r, f: softplus(f - r).mean(),
    g=lambda r, f: softplus(r - f).mean(),
    relative=True,
)


def gradient_penalty_from_logits(logits: Tensor, images: Sequence[Tensor]) -> Tensor:
    """0.5 E||dD/dx||^2, summed over batches of images, from logits that D has already computed.

    Args:
        logits: of all images, any shape, with an autograd graph from them.
        images: batches (N,C,H,W), leaves that require gradients.
    """
    gradients = torch.autograd.grad(logits.sum(), list(images), create_graph=True)
    squares = [gradient.square().flatten(1).sum(1).mean() for gradient in gradients]
    return 0.5 * torch.stack(squares).sum()


def r1(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """0.5 E||grad D(real)||^2 (Mescheder et al. 2018). real: (N,C,H,W); fake and mix are unused."""
    real = real.detach().requires_grad_(True)
    return gradient_penalty_from_logits(critic(real), [real])


def r1r2(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """0.5 (E||grad D(real)||^2 + E||grad D(fake)||^2) (Mescheder et al. 2018; R3GAN). mix is unused."""
    return r1(critic, real, fake, mix) + r1(critic, fake, real, mix)


def gp(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E(||grad D(x)|| - 1)^2 between real and fake (WGAN-GP, Gulrajani et al. 2017).

    mix: (N,C,H,W) uniform in [0, 1], drawn by the caller; one number per image is used.
    """
    return _unit_norm_penalty(critic, torch.lerp(fake.detach(), real.detach(), mix[:, :1, :1, :1]))


def dragan(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E(||grad D(x)|| - 1)^2 around the reals: x = real + mix * 0.5 std(real) (Kodali et al. 2017).

    mix: (N,C,H,W) uniform in [0, 1]: independent noise for every pixel, so that all directions are covered.
    """
    real = real.detach()
    return _unit_norm_penalty(critic, real + mix * 0.5 * real.std())


def _unit_norm_penalty(critic: Critic, images: Tensor) -> Tensor:
    images = images.requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    norms: Tensor = gradient.flatten(1).norm(dim=1)
    return (norms - 1).square().mean()
