"""The user's own losses and penalties: in training, and what is wrong with them before a search."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.tables import LOSSES, PENALTIES
from pipeline.training.custom_losses import check_loss, check_penalty
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.trainer import Trainer

SHAPE = ImageShape(8, 1)
HEAD = "import torch\nfrom torch.nn.functional import softplus\n"
PLAIN = (
    HEAD
    + """
def loss(real, fake):
    return softplus(-real).mean() + softplus(fake).mean(), softplus(-fake).mean()
"""
)
OBJECT = (
    HEAD
    + """
from pipeline.training.losses import Loss
loss = Loss(d=lambda r, f: softplus(-r).mean() + softplus(f).mean(), g=lambda r, f: softplus(-f).mean())
"""
)
CLASS = (
    HEAD
    + """
class loss:
    relative = False
    def d(r, f):
        return softplus(-r).mean() + softplus(f).mean()
    def g(r, f):
        return softplus(-f).mean()
"""
)
PENALTY = (
    HEAD
    + """
def penalty(critic, real, fake, mix):
    images = real.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(images).sum(), images, create_graph=True)
    return 0.5 * gradient.square().flatten(1).sum(1).mean()
"""
)


def trained(make_trainer: Callable[..., Trainer], **changes: object) -> Trainer:
    trainer = make_trainer(**changes)
    trainer.advance(1, should_stop=lambda: trainer.d_steps == 5)
    return trainer


@pytest.mark.parametrize("text", [PLAIN, OBJECT, CLASS])
def test_a_loss_of_the_user_s_own_trains_like_the_same_row(
    make_trainer: Callable[..., Trainer], own_code: Callable[..., Path], text: str
) -> None:
    own_code(text)
    check_loss("mine:loss")
    ours, row = (trained(make_trainer, loss=name) for name in ("mine:loss", "nonsaturating"))
    assert ours.loss.relative is (text == PLAIN)
    assert ours.metrics.read() == row.metrics.read()
    assert all(torch.equal(a, b) for a, b in zip(ours.G.parameters(), row.G.parameters(), strict=True))


def test_a_penalty_of_the_user_s_own_is_that_of_the_row(
    make_trainer: Callable[..., Trainer], own_code: Callable[..., Path]
) -> None:
    own_code(PENALTY)
    check_penalty("mine:penalty", SHAPE)
    ours, row = (trained(make_trainer, penalty=name, norm_g="none") for name in ("mine:penalty", "r1"))
    found, expected = ours.metrics.read(), row.metrics.read()
    assert found["penalty"] == pytest.approx(expected["penalty"], rel=1e-3)
    assert math.isfinite(found["loss_g"])


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("return real.mean()", ["returned float32 ()", "what D and what G", "return loss_d, loss_g"]),
        ("return 1 / 0", ["fails for logits of shape (4,)", "ZeroDivisionError", "(line 5)"]),
        ("return real - fake, -fake", ["the loss of D is float32 (4,)", "float scalar"]),
        ("return 0.5, -fake.mean()", ["the loss of D is float"]),
        ("return fake.mean(), -fake.mean()", ["the loss of D has no gradient"]),
        ("return (fake - real).mean(), -fake.mean().detach()", ["the loss of G has no gradient", "logits"]),
        ("return (fake - real).mean(), (-fake).log().mean()", ["the loss of G is nan", "finite"]),
        (
            "return (fake - real).mean(), (fake - fake).sum().sqrt()",
            ["the loss of G is 0.0, or its gradient"],
        ),
    ],
)
def test_what_is_wrong_with_a_loss_is_one_line(
    own_code: Callable[..., Path], body: str, parts: list[str]
) -> None:
    own_code(f"{HEAD}\ndef loss(real, fake):\n    {body}\n")
    with pytest.raises(ConfigError) as caught:
        check_loss("mine:loss")
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("return critic(real)", ["mine:penalty is float32 (4,)", "float scalar"]),
        ("return real.mean()", ["mine:penalty has no gradient"]),
        ("return critic(real[:, :, :3]).mean()", ["mine:penalty fails", "RuntimeError"]),
        ("return (critic(real) * float('inf')).mean()", ["mine:penalty is", "finite"]),
        (
            "s = critic(real.requires_grad_()).sum(); torch.autograd.grad(s, real); return s",
            ["mine:penalty fails", "a second time"],
        ),
    ],
)
def test_what_is_wrong_with_a_penalty_is_one_line(
    own_code: Callable[..., Path], body: str, parts: list[str]
) -> None:
    own_code(f"{HEAD}\ndef penalty(critic, real, fake, mix):\n    {body}\n")
    with pytest.raises(ConfigError) as caught:
        check_penalty("mine:penalty", SHAPE)
    assert "\n" not in str(caught.value)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_rows_are_not_tried() -> None:
    for loss in LOSSES:
        check_loss(loss)
    for penalty in PENALTIES:
        check_penalty(penalty, SHAPE)
