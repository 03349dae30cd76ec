"""Adversarial losses and gradient penalties as pure functions of logits and images.

Owns: one table from a loss's name to its pair, one from a penalty's name to its function.
Refuses: logging, stepping, weighting (gamma and the lazy interval belong to the trainer).

Notation: r = D(real) (N,), f = D(G(z)) (N,), sp = softplus. Every function returns a scalar to minimise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

Critic = Callable[[Tensor], Tensor]
"""images (N,C,H,W) -> logits (N,), with the labels already bound."""


@dataclass(frozen=True)
class Loss:
    """A pair of objectives: `d(r, f)` for D, `g(r, f)` for G (r without gradient there)."""

    d: Callable[[Tensor, Tensor], Tensor]
    g: Callable[[Tensor, Tensor], Tensor]
    relative: bool = False  # G's loss looks at r too


LOSSES: dict[str, Loss] = {
    # Goodfellow et al. 2014, the zero-sum game: G minimises E log(1 - sigmoid(f)).
    "minimax": Loss(
        d=lambda r, f: softplus(-r).mean() + softplus(f).mean(),
        g=lambda r, f: -softplus(f).mean(),
    ),
    # Goodfellow et al. 2014, the version that is used: G maximises E log sigmoid(f).
    "nonsaturating": Loss(
        d=lambda r, f: softplus(-r).mean() + softplus(f).mean(),
        g=lambda r, f: softplus(-f).mean(),
    ),
    # Lim & Ye 2017; Miyato et al. 2018.
    "hinge": Loss(
        d=lambda r, f: relu(1 - r).mean() + relu(1 + f).mean(),
        g=lambda r, f: -f.mean(),
    ),
    # Mao et al. 2017, targets 1 and 0.
    "lsgan": Loss(
        d=lambda r, f: 0.5 * (r - 1).square().mean() + 0.5 * f.square().mean(),
        g=lambda r, f: 0.5 * (f - 1).square().mean(),
    ),
    # Arjovsky et al. 2017; needs a penalty to keep D Lipschitz.
    "wasserstein": Loss(
        d=lambda r, f: f.mean() - r.mean(),
        g=lambda r, f: -f.mean(),
    ),
    # Jolicoeur-Martineau 2019, paired as in R3GAN (Huang et al. 2024).
    "relativistic": Loss(
        d=lambda r, f: softplus(f - r).mean(),
        g=lambda r, f: softplus(r - f).mean(),
        relative=True,
    ),
}


def gradient_penalty_from_logits(logits: Tensor, images: Sequence[Tensor]) -> Tensor:
    """0.5 E||dD/dx||^2 summed over kinds of images, from the logits that D has given them already.

    logits: of all the images, any shape, in a graph from them; images: leaves (N,C,H,W) with gradient.
    """
    gradients = torch.autograd.grad(logits.sum(), list(images), create_graph=True)
    squares = [gradient.square().flatten(1).sum(1).mean() for gradient in gradients]
    return 0.5 * torch.stack(squares).sum()


def r1(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """0.5 E||grad D(real)||^2 (Mescheder et al. 2018)."""
    real = real.detach().requires_grad_(True)
    return gradient_penalty_from_logits(critic(real), [real])


def r1r2(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """0.5 (E||grad D(real)||^2 + E||grad D(fake)||^2) (Mescheder et al. 2018; R3GAN)."""
    return r1(critic, real, fake, mix) + r1(critic, fake, real, mix)


def gp(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E(||grad D(x)|| - 1)^2 between real and fake (WGAN-GP, Gulrajani et al. 2017).

    mix: (N,C,H,W) uniform in [0, 1], drawn by the caller; one number of each image's is used.
    """
    return _unit_slope(critic, torch.lerp(fake.detach(), real.detach(), mix[:, :1, :1, :1]))


def dragan(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E(||grad D(x)|| - 1)^2 around the reals: x = real + mix * 0.5 std(real) (Kodali et al. 2017).

    mix: (N,C,H,W) uniform in [0, 1]: noise of its own for every pixel, so that all directions are seen.
    """
    real = real.detach()
    return _unit_slope(critic, real + mix * 0.5 * real.std())


def _unit_slope(critic: Critic, images: Tensor) -> Tensor:
    images = images.requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    slopes: Tensor = gradient.flatten(1).norm(dim=1)
    return (slopes - 1).square().mean()


Penalty = Callable[[Critic, Tensor, Tensor, Tensor], Tensor]

PENALTIES: dict[str, Penalty] = {"r1": r1, "r1r2": r1r2, "gp": gp, "dragan": dragan}
"""name -> penalty(critic, real, fake, mix); `none` is the absence of a penalty."""

PENALTY_INPUTS: dict[str, tuple[bool, bool]] = {"r1": (True, False), "r1r2": (True, True)}
"""The penalties at (reals, fakes) themselves: `judged_slope` takes them from the loss's own pass of D."""
