"""Every family in every size: shapes, ranges, conditions, initialisation; spectral norm; the average of G."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.data import to_float
from pipeline.errors import ConfigError
from pipeline.networks import Ema, Generator, ImageShape, build, parameters_of, to_uint8

FAMILIES = ("mlp", "dcgan", "resnet")
SIZES = [("mlp", 17), ("mlp", 9)] + [(family, size) for family in FAMILIES for size in (8, 16, 28, 32, 64)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize(("family", "size"), SIZES)
def test_shapes_and_ranges(tiny: Any, family: str, size: int, conditional: bool) -> None:
    for channels in (1, 3):
        config = tiny(architecture=family, conditional=conditional, width_g=2, width_d=2)
        generator, discriminator = build(config, ImageShape(size, channels, 5))
        labels = torch.arange(4) if conditional else None
        images = generator(torch.randn(4, 8), labels)
        assert images.shape == (4, channels, size, size)
        assert images.dtype == torch.float32
        assert images.abs().max() <= 1
        assert images.std() > 0.01
        scores = discriminator(images, labels)
        assert scores.shape == (4,)
        assert scores.isfinite().all()
        assert (generator.z_dim, generator.classes) == (8, 5 if conditional else 0)


@pytest.mark.parametrize("family", ["dcgan", "resnet"])
@pytest.mark.parametrize("size", [4, 7, 9, 17, 18, 30, 31, 33, 100 + 1, 36])
def test_sizes_that_a_family_cannot_draw(tiny: Any, family: str, size: int) -> None:
    with pytest.raises(ConfigError) as caught:
        build(tiny(architecture=family), ImageShape(size, 1))
    line = str(caught.value)
    assert "\n" not in line
    assert f"{size} px" in line
    assert "mlp" in line


@pytest.mark.parametrize("family", ["dcgan", "resnet"])
@pytest.mark.parametrize("size", [10, 12, 14, 20, 24, 48, 56])
def test_sizes_of_four_to_seven_times_a_power_of_two(tiny: Any, family: str, size: int) -> None:
    generator, discriminator = build(tiny(architecture=family), ImageShape(size, 1))
    assert discriminator(generator(torch.randn(2, 8))).shape == (2,)


@pytest.mark.parametrize("family", FAMILIES)
def test_conditions_need_labels(tiny: Any, family: str) -> None:
    with pytest.raises(ConfigError, match="labelled") as caught:
        build(tiny(architecture=family, conditional=True), ImageShape(8, 1, 0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_matter_only_to_conditional_networks(tiny: Any, family: str) -> None:
    z, images = torch.randn(4, 8), torch.randn(4, 1, 8, 8)
    zeros, ones = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    for conditional in (False, True):
        config = tiny(architecture=family, conditional=conditional, norm_g="none")
        generator, discriminator = build(config, ImageShape(8, 1, 3))
        assert torch.equal(generator(z, zeros), generator(z, ones)) is not conditional
        assert torch.equal(discriminator(images, zeros), discriminator(images, ones)) is not conditional


def test_projection_is_an_inner_product_with_the_features(tiny: Any) -> None:
    """D(x, y) - D(x) = <embedding(y), features(x)> / sqrt(F) (Miyato & Koyama 2018, scaled)."""
    _, discriminator = build(tiny(conditional=True), ImageShape(8, 1, 3))
    images, labels = torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 1, 0])
    features = discriminator.body(images)
    rows = discriminator.project.weight[labels]
    expected = torch.einsum("nf,nf->n", rows, features) / math.sqrt(features.shape[1])
    torch.testing.assert_close(discriminator(images, labels) - discriminator(images), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("knob", ["width_g", "width_d", "depth_g", "depth_d"])
def test_widths_and_depths_change_the_right_network(tiny: Any, family: str, knob: str) -> None:
    shape = ImageShape(16, 1)
    base = [parameters_of(n) for n in build(tiny(architecture=family), shape)]
    more = [parameters_of(n) for n in build(tiny(architecture=family, **{knob: 8}), shape)]
    changed = 0 if knob.endswith("g") else 1
    assert more[changed] > base[changed]
    assert more[1 - changed] == base[1 - changed]


def test_parameters_of_counts_by_hand(tiny: Any) -> None:
    generator, discriminator = build(tiny(architecture="mlp", norm_g="none"), ImageShape(8, 1))
    assert parameters_of(generator) == (8 * 4 + 4) + (4 * 64 + 64)
    assert parameters_of(discriminator) == (64 * 4 + 4) + (4 + 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_initialisation_follows_the_seed(tiny: Any, family: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        networks = build(tiny(architecture=family, conditional=True), ImageShape(8, 1, 3))
        return torch.cat([p.detach().flatten() for n in networks for p in n.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize("family", FAMILIES)
def test_signals_keep_their_scale_through_a_fresh_network(tiny: Any, family: str) -> None:
    """He initialisation: neither vanishing nor saturated, though the networks are 4 layers deep."""
    config = tiny(architecture=family, width_g=32, width_d=32, norm_g="none", z_dim=64)
    generator, discriminator = build(config, ImageShape(32, 1))
    assert 0.2 < generator.body(torch.randn(64, 64)).std() < 3
    assert 0.1 < discriminator(torch.randn(64, 1, 32, 32)).std() < 3


def test_residual_blocks_begin_as_the_identity(tiny: Any) -> None:
    shallow, deep = (build(tiny(architecture="resnet", depth_d=d), ImageShape(8, 1))[1] for d in (1, 3))
    convolutions = [[m for m in network.body if isinstance(m, nn.Conv2d)] for network in (shallow, deep)]
    for ours, theirs in zip(*convolutions, strict=True):
        theirs.load_state_dict(ours.state_dict())
    deep.head.load_state_dict(shallow.head.state_dict())
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(shallow(images), deep(images))


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm2d), ("layer", nn.GroupNorm), ("none", type(None))]
)
def test_norms_of_d(tiny: Any, norm: str, kind: type) -> None:
    _, discriminator = build(tiny(norm_d=norm), ImageShape(16, 1))
    norms = {type(m) for m in discriminator.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)}
    assert norms == ({kind} if norm != "none" else set())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "spectral"])
def test_every_norm_of_d_gives_scores_and_gradients(tiny: Any, family: str, norm: str) -> None:
    _, discriminator = build(tiny(architecture=family, norm_d=norm, conditional=True), ImageShape(16, 1, 3))
    scores = discriminator(torch.randn(6, 1, 16, 16), torch.arange(6) % 3)
    assert scores.isfinite().all()
    assert scores.std() > 0
    torch.autograd.backward(scores.square().sum())
    assert all(p.grad.isfinite().all() for p in discriminator.parameters() if p.grad is not None)


@pytest.mark.parametrize("family", FAMILIES)
def test_spectral_norm_against_svd(tiny: Any, family: str) -> None:
    config = tiny(architecture=family, norm_d="spectral", conditional=True)
    _, discriminator = build(config, ImageShape(8, 1, 3))
    seen = 0
    for module in discriminator.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            raw = module.parametrizations.weight.original
            for _ in range(300):
                weight = module.weight
            top = torch.linalg.svdvals(weight.detach().flatten(1))[0].item()
            assert top == pytest.approx(1, abs=2e-3)
            expected = raw / torch.linalg.svdvals(raw.flatten(1))[0]
            torch.testing.assert_close(weight, expected, atol=2e-3, rtol=0)
            seen += 1
    assert seen >= 3


def test_to_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-1.0, 1.0, 0.0, -2.0, 2.0, 1 / 127.5, 0.49 / 127.5, -0.49 / 127.5])
    images = to_uint8(values.view(1, 1, 2, 4))
    assert images.shape == (1, 2, 4, 1)
    assert images.flatten().tolist() == [0, 255, 128, 0, 255, 129, 128, 127]


def test_every_byte_comes_back() -> None:
    bytes_ = torch.arange(256, dtype=torch.uint8).view(2, 8, 16, 1).expand(2, 8, 16, 3).contiguous()
    assert torch.equal(to_uint8(to_float(bytes_)), bytes_)
    assert to_float(bytes_).aminmax() == (-1, 1)


# ---- Ema


def one_weight() -> Generator:
    body = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(body.weight)
    return Generator(body, z_dim=1, classes=0)


@pytest.mark.parametrize(("halflife", "images"), [(1.0, 32), (5.0, 64), (0.5, 500)])
def test_ema_forgets_half_in_a_half_life(halflife: float, images: int) -> None:
    live = one_weight()
    ema = Ema(live, halflife)
    nn.init.ones_(live.body.weight)
    steps = 40
    for _ in range(steps):
        ema.update(images, shown=10**9)
    expected = 1 - 0.5 ** (steps * images / (halflife * 1000))
    assert ema.generator.body.weight.item() == pytest.approx(expected, rel=1e-4)


def test_ema_ramps_up_with_the_images_shown() -> None:
    """The half-life is 5 % of the images shown, until that passes what was asked."""
    live = one_weight()
    ema = Ema(live, halflife_kimg=2.0)
    nn.init.ones_(live.body.weight)
    kept, shown = 1.0, 0
    for _ in range(2000):
        shown += 100
        ema.update(100, shown)
        kept *= 0.5 ** (100 / min(2000, 0.05 * shown))
        if shown in (100, 500, 5000, 40_000, 50_000):
            assert 1 - ema.generator.body.weight.item() == pytest.approx(kept, rel=1e-3, abs=1e-6)
            nn.init.zeros_(ema.generator.body.weight)
            kept = 1.0


def test_ema_of_half_life_zero_copies() -> None:
    live = one_weight()
    ema = Ema(live, 0.0)
    nn.init.constant_(live.body.weight, 0.7)
    assert ema.generator.body.weight.item() == 0
    ema.update(32, 32)
    assert ema.generator.body.weight.item() == live.body.weight.item()


def test_ema_averages_buffers_and_is_itself_fixed(tiny: Any) -> None:
    live, _ = build(tiny(norm_g="batch"), ImageShape(8, 1))
    ema = Ema(live, 1.0)
    before = {name: b.clone() for name, b in ema.generator.named_buffers() if b.is_floating_point()}
    for _ in range(3):
        live(torch.randn(16, 8))  # moves the running statistics
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


def test_ema_follows_weights_that_were_loaded() -> None:
    live = one_weight()
    ema = Ema(live, 0.0)
    live.load_state_dict({"body.weight": torch.full((1, 1), 3.0)})
    ema.generator.load_state_dict({"body.weight": torch.full((1, 1), 9.0)})
    ema.update(1, 1)
    assert ema.generator.body.weight.item() == 3.0
