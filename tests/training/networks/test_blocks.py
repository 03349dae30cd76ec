"""Projection, EMA weights, class-conditional batch norm."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.tables import NETWORKS
from pipeline.training.networks.blocks import ClassNorm, Ema, Generator, ImageShape
from pipeline.training.networks.build import build_networks


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_projection_is_an_inner_product_with_the_features(tiny: Any) -> None:
    """D(x, y) - D(x) = <embedding(y), features(x)> / sqrt(F) (Miyato & Koyama 2018, scaled)."""
    _, discriminator = build_networks(tiny(conditional=True), ImageShape(8, 1, 3))
    images, labels = torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 1, 0])
    features = discriminator.body(images)
    rows = discriminator.project.weight[labels]
    expected = torch.einsum("nf,nf->n", rows, features) / math.sqrt(features.shape[1])
    torch.testing.assert_close(discriminator(images, labels) - discriminator(images), expected)


# ---- EMA


def one_weight() -> Generator:
    body = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(body.weight)
    return Generator(body, z_dim=1, classes=0)


@pytest.mark.parametrize(("halflife", "images"), [(1.0, 32), (5.0, 64), (0.5, 500)])
def test_ema_weight_halves_in_a_half_life(halflife: float, images: int) -> None:
    live = one_weight()
    ema = Ema(live, halflife)
    nn.init.ones_(live.body.weight)
    steps = 40
    for _ in range(steps):
        ema.update(images, shown=10**9)
    expected = 1 - 0.5 ** (steps * images / (halflife * 1000))
    assert ema.generator.body.weight.item() == pytest.approx(expected, rel=1e-4)


def test_ema_half_life_is_limited_early_in_training() -> None:
    """The half-life is at most 5 % of the images seen."""
    live = one_weight()
    ema = Ema(live, halflife_kimg=2.0)
    nn.init.ones_(live.body.weight)
    decay, shown = 1.0, 0
    for _ in range(2000):
        shown += 100
        ema.update(100, shown)
        decay *= 0.5 ** (100 / min(2000, 0.05 * shown))
        if shown in (100, 500, 5000, 40_000, 50_000):
            assert 1 - ema.generator.body.weight.item() == pytest.approx(decay, rel=1e-3, abs=1e-6)
            nn.init.zeros_(ema.generator.body.weight)
            decay = 1.0


def test_ema_of_half_life_zero_copies() -> None:
    live = one_weight()
    ema = Ema(live, 0.0)
    nn.init.constant_(live.body.weight, 0.7)
    assert ema.generator.body.weight.item() == 0
    ema.update(32, 32)
    assert ema.generator.body.weight.item() == live.body.weight.item()


def test_ema_averages_buffers_and_is_not_trained(tiny: Any) -> None:
    live, _ = build_networks(tiny(norm_g="batch"), ImageShape(8, 1))
    ema = Ema(live, 1.0)
    before = {name: b.clone() for name, b in ema.generator.named_buffers() if b.is_floating_point()}
    for _ in range(3):
        live(torch.randn(16, 8))  # updates the running statistics
    now = {name: b.clone() for name, b in live.named_buffers()}
    ema.update(500, 10**9)
    assert before
    for name, buffer in ema.generator.named_buffers():
        if name in before:
            torch.testing.assert_close(buffer, before[name] + (1 - 0.5**0.5) * (now[name] - before[name]))
            assert not torch.equal(buffer, before[name])
    assert not any(p.requires_grad for p in ema.generator.parameters())
    assert not ema.generator.training
    assert all(torch.equal(b, now[name]) for name, b in live.named_buffers())


def test_ema_follows_loaded_weights() -> None:
    live = one_weight()
    ema = Ema(live, 0.0)
    live.load_state_dict({"body.weight": torch.full((1, 1), 3.0)})
    ema.generator.load_state_dict({"body.weight": torch.full((1, 1), 9.0)})
    ema.update(1, 1)
    assert ema.generator.body.weight.item() == 3.0


@pytest.mark.parametrize("architecture", ["mlp", "dcgan"])
def test_each_class_has_a_gain_and_a_bias(tiny: Any, architecture: str) -> None:
    """The images of class k are those of plain batch norm with the gain and bias of k."""
    config = tiny(architecture=architecture, conditional=True, condition_g="batchnorm")
    generator, _ = build_networks(config, ImageShape(8, 1, 3))
    norms = [m for m in generator.modules() if isinstance(m, ClassNorm)]
    for norm in norms:
        nn.init.normal_(norm.gain.weight)
        nn.init.normal_(norm.bias.weight)
    z = torch.randn(16, 8)
    for label in range(3):
        x = z
        for module in generator.body:
            if isinstance(module, ClassNorm):
                gain, bias = module.gain.weight[label], module.bias.weight[label]
                x = nn.functional.batch_norm(x, None, None, gain, bias, training=True)
            else:
                x = module(x)
        torch.testing.assert_close(generator(z, torch.full((16,), label)), torch.tanh(x))
    assert norms
    assert generator.embed is None


def test_classes_start_equal_and_learn_separately(tiny: Any) -> None:
    generator, _ = build_networks(tiny(conditional=True, condition_g="batchnorm"), ImageShape(8, 1, 3))
    labels = torch.tensor([0, 0, 2, 2])
    torch.autograd.backward(generator(torch.randn(4, 8), labels).square().sum())
    norm = next(m for m in generator.modules() if isinstance(m, ClassNorm))
    assert torch.equal(norm.gain.weight, torch.ones_like(norm.gain.weight))
    trained = norm.bias.weight.grad.abs().sum(1) > 0
    assert trained.tolist() == [True, False, True]


@pytest.mark.parametrize(
    "changes",
    [
        *({"architecture": name} for name, row in NETWORKS.items() if not row.class_norm),
        {"norm_g": "none"},
        {"condition_g": "embed"},
    ],
)
def test_without_batch_norm_the_class_is_embedded(tiny: Any, changes: dict[str, str]) -> None:
    config = tiny(**{"conditional": True, "condition_g": "batchnorm", **changes})
    generator, _ = build_networks(config, ImageShape(8, 1, 3))
    assert generator.embed is not None
    assert not any(isinstance(m, ClassNorm) for m in generator.modules())


def test_condition_g_has_no_effect_if_unconditional(tiny: Any) -> None:
    torch.manual_seed(0)
    plain, _ = build_networks(tiny(), ImageShape(8, 1, 3))
    torch.manual_seed(0)
    other, _ = build_networks(tiny(condition_g="batchnorm"), ImageShape(8, 1, 3))
    assert plain.state_dict().keys() == other.state_dict().keys()
    assert torch.equal(plain(torch.ones(2, 8)), other(torch.ones(2, 8)))
