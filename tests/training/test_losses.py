"""Losses and penalties against closed forms and finite differences, all in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.func import functional_call

from pipeline import tables
from pipeline.training.losses import gradient_penalty_from_logits, load_loss, penalty_inputs

LOSSES = {name: load_loss(name) for name in tables.LOSSES}
PENALTIES = {name: tables.PENALTIES.load(name) for name in tables.PENALTIES if name != "none"}
SHAPE = (5, 2, 3, 3)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def scores() -> tuple[Tensor, Tensor]:
    return torch.randn(7, dtype=torch.float64) * 2, torch.randn(7, dtype=torch.float64) * 2


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """real, fake, mix: (N,C,H,W)."""
    shape = SHAPE
    return torch.randn(shape).double(), torch.randn(shape).double(), torch.rand(shape).double()


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


CLOSED: dict[str, tuple[Callable[[float, float], float], Callable[[float, float], float]]] = {
    "minimax": (lambda r, f: -log_sigmoid(r) - log_sigmoid(-f), lambda r, f: log_sigmoid(-f)),
    "nonsaturating": (lambda r, f: -log_sigmoid(r) - log_sigmoid(-f), lambda r, f: -log_sigmoid(f)),
    "hinge": (lambda r, f: max(0.0, 1 - r) + max(0.0, 1 + f), lambda r, f: -f),
    "lsgan": (lambda r, f: 0.5 * (r - 1) ** 2 + 0.5 * f**2, lambda r, f: 0.5 * (f - 1) ** 2),
    "wasserstein": (lambda r, f: f - r, lambda r, f: -f),
    "relativistic": (lambda r, f: -log_sigmoid(r - f), lambda r, f: -log_sigmoid(f - r)),
}


def test_every_loss_has_a_closed_form() -> None:
    assert set(CLOSED) == set(LOSSES)


@pytest.mark.parametrize("name", CLOSED)
def test_losses_equal_their_closed_forms(name: str) -> None:
    real, fake = scores()
    for side, closed in zip(("d", "g"), CLOSED[name], strict=True):
        expected = sum(closed(r, f) for r, f in zip(real.tolist(), fake.tolist(), strict=True)) / len(real)
        assert getattr(LOSSES[name], side)(real, fake).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("side", ["d", "g"])
def test_gradients_of_losses(name: str, side: str) -> None:
    real, fake = (s.requires_grad_(True) for s in scores())
    assert gradcheck(getattr(LOSSES[name], side), (real, fake))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_adversarial(name: str) -> None:
    """The loss of D falls as r rises and f falls (between the targets); that of G falls as f rises."""
    real, fake = (torch.full((4,), value, dtype=torch.float64, requires_grad=True) for value in (0.1, 0.2))
    d_real, d_fake = torch.autograd.grad(LOSSES[name].d(real, fake), (real, fake))
    (g_fake,) = torch.autograd.grad(LOSSES[name].g(real.detach(), fake), fake)
    assert (d_real < 0).all()
    assert (d_fake > 0).all()
    assert (g_fake < 0).all()


def test_minimax_is_zero_sum_and_saturates() -> None:
    fake = torch.tensor([-20.0], dtype=torch.float64, requires_grad=True)
    gradient = {name: torch.autograd.grad(LOSSES[name].g(fake, fake), fake)[0].item() for name in LOSSES}
    assert gradient["minimax"] == pytest.approx(-math.exp(-20), rel=1e-6)
    assert gradient["nonsaturating"] == pytest.approx(-1.0, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_finite_for_huge_scores(name: str) -> None:
    real, fake = torch.tensor([-1e4, 1e4]), torch.tensor([1e4, -1e4])
    assert LOSSES[name].d(real, fake).isfinite()
    assert LOSSES[name].g(real, fake).isfinite()


def test_only_the_relativistic_loss_of_g_depends_on_the_reals() -> None:
    real, fake = scores()
    for loss in LOSSES.values():
        assert (loss.g(real, fake) != loss.g(real + 1, fake)).item() is loss.relative


LINEAR = {
    "r1": (lambda n: 0.5 * n**2, lambda n: n),
    "r1r2": (lambda n: n**2, lambda n: 2 * n),
    "gp": (lambda n: (n - 1) ** 2, lambda n: 2 * (n - 1)),
    "dragan": (lambda n: (n - 1) ** 2, lambda n: 2 * (n - 1)),
}


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("length", [0.3, 1.0, 2.5])
def test_penalties_of_a_linear_critic(name: str, length: float) -> None:
    """D(x) = w.x + b: the gradient is w at every x; value and derivative follow from |w| alone."""
    direction = torch.randn(SHAPE[1:], dtype=torch.float64)
    direction /= direction.norm()
    weight = (length * direction).requires_grad_(True)
    penalty = PENALTIES[name](lambda x: (x * weight).flatten(1).sum(1) + 0.7, *batch())
    value, derivative = LINEAR[name]
    assert penalty.item() == pytest.approx(value(length), abs=1e-12)
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, derivative(length) * direction)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_of_a_quadratic_critic(name: str) -> None:
    """D(x) = a |x|^2 / 2: the gradient is a x, so the penalty depends on the x at which it was taken."""
    real, fake, mix = batch()
    a = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    penalty = PENALTIES[name](lambda x: 0.5 * a * x.square().flatten(1).sum(1), real, fake, mix)

    def norms(x: Tensor) -> Tensor:
        return x.flatten(1).norm(dim=1)

    between = mix[:, :1, :1, :1] * real + (1 - mix[:, :1, :1, :1]) * fake
    around = real + mix * 0.5 * real.std()
    closed = {
        "r1": lambda s: 0.5 * s**2 * norms(real).square().mean(),
        "r1r2": lambda s: 0.5 * s**2 * (norms(real).square().mean() + norms(fake).square().mean()),
        "gp": lambda s: (s * norms(between) - 1).square().mean(),
        "dragan": lambda s: (s * norms(around) - 1).square().mean(),
    }[name]
    torch.testing.assert_close(penalty, closed(a))
    found, expected = (torch.autograd.grad(value, a)[0] for value in (penalty, closed(a)))
    torch.testing.assert_close(found, expected)


def smooth_critic() -> nn.Module:
    """Smooth, so that its gradient has finite differences."""
    critic = nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.Softplus(), nn.Flatten(), nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 1)
    )
    return nn.Sequential(critic, nn.Flatten(0)).double()


@pytest.mark.parametrize("name", PENALTIES)
def test_second_order_gradients(name: str) -> None:
    """The penalty's gradient with respect to every weight of D against finite differences."""
    critic, images = smooth_critic(), batch()
    names, weights = zip(*critic.named_parameters(), strict=True)
    weights = tuple(w.detach().clone().requires_grad_(True) for w in weights)

    def value(*values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        return PENALTIES[name](lambda x: functional_call(critic, parameters, (x,)), *images)

    assert gradcheck(value, weights)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_change_neither_their_images_nor_g(name: str) -> None:
    real, fake, mix = batch()
    copies = [real.clone(), fake.clone()]
    fake_of_g = fake.clone().requires_grad_(True)
    critic = smooth_critic()
    penalty = PENALTIES[name](critic, real, fake_of_g * 1.0, mix)
    assert torch.autograd.grad(penalty, fake_of_g, allow_unused=True)[0] is None
    assert torch.equal(real, copies[0])
    assert torch.equal(fake, copies[1])
    assert not real.requires_grad


@pytest.mark.parametrize("name", PENALTIES)
def test_a_critic_of_zeros_has_finite_gradients(name: str) -> None:
    """|grad| is not differentiable at 0; zero weights must not become NaN."""
    critic = smooth_critic()
    for parameter in critic.parameters():
        nn.init.zeros_(parameter)
    torch.autograd.backward(PENALTIES[name](critic, *batch()))
    assert all(p.grad is None or p.grad.isfinite().all() for p in critic.parameters())


def test_dragan_covers_all_directions() -> None:
    """Its noise is independent for each pixel; brightness alone would leave all other directions out."""
    real, fake, mix = batch()
    seen: list[Tensor] = []
    PENALTIES["dragan"](lambda x: (seen.append(x), x.sum((1, 2, 3)))[1], real, fake, mix)
    noise = (seen[0] - real).detach().flatten(1)
    assert torch.linalg.matrix_rank(noise - noise.mean(1, keepdim=True)) == len(real)
    assert noise.min() >= 0
    assert noise.max() <= 0.5 * real.std()


def test_gp_lies_between_real_and_fake() -> None:
    real, fake, mix = batch()
    seen: list[Tensor] = []
    PENALTIES["gp"](lambda x: (seen.append(x), x.sum((1, 2, 3)))[1], real, fake, mix)
    fraction = ((seen[0] - fake) / (real - fake)).detach().flatten(1)
    torch.testing.assert_close(fraction, mix[:, 0, 0, 0, None].expand_as(fraction))


def test_a_penalty_does_not_depend_on_the_batch_size() -> None:
    """It is a mean over images: a batch of copies has the same penalty as one image."""
    critic = smooth_critic()
    image = torch.randn(1, *SHAPE[1:], dtype=torch.float64)
    one, many = (image.repeat(n, 1, 1, 1).requires_grad_(True) for n in (1, 6))
    torch.testing.assert_close(
        gradient_penalty_from_logits(critic(one), [one]), gradient_penalty_from_logits(critic(many), [many])
    )


@pytest.mark.parametrize("name", ["r1", "r1r2"])
def test_a_penalty_from_the_logits_of_the_loss_is_the_same(name: str) -> None:
    """The same value and gradients for every weight of D, from one forward pass of reals and fakes."""
    critic = smooth_critic()
    real, fake, mix = batch()
    inputs = [
        x.detach().requires_grad_(True)
        for x, is_input in zip((real, fake), penalty_inputs(name), strict=True)
        if is_input
    ]
    logits = critic(torch.cat([*inputs, fake.detach()]))
    found, expected = gradient_penalty_from_logits(logits, inputs), PENALTIES[name](critic, real, fake, mix)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        *(torch.autograd.grad(x, [*critic.parameters()], allow_unused=True) for x in (found, expected)),
        strict=True,
    ):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)
