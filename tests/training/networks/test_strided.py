"""Convolutions by products: the same numbers, to any order of derivative, and nothing else touched."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from pipeline.config import TrialConfig
from pipeline.training.networks import strided
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks
from pipeline.training.networks.strided import speed_up_strided

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "halving": (lambda: nn.Conv2d(6, 8, 4, 2, 1), (4, 6, 12, 8)),
    "halving a large map": (lambda: nn.Conv2d(6, 8, 4, 2, 1), (2, 6, 20, 20)),
    "halving grey": (lambda: nn.Conv2d(1, 8, 4, 2, 1, bias=False), (4, 1, 12, 12)),
    "halving an odd side": (lambda: nn.Conv2d(6, 8, 4, 2, 1), (4, 6, 13, 12)),
    "doubling": (lambda: nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False), (4, 8, 4, 6)),
    "doubling to colour": (lambda: nn.ConvTranspose2d(8, 3, 4, 2, 1), (4, 8, 4, 6)),
    "the whole map": (lambda: nn.Conv2d(6, 2, 4, 1, 0), (4, 6, 4, 4)),
    "from one place": (lambda: nn.ConvTranspose2d(10, 6, 4, 1, 0), (4, 10, 1, 1)),
    "three by three": (lambda: nn.Conv2d(6, 8, 3, 1, 1), (4, 6, 8, 8)),
    "grouped": (lambda: nn.Conv2d(6, 8, 4, 2, 1, groups=2), (4, 6, 8, 8)),
    "reflecting": (lambda: nn.Conv2d(6, 8, 4, 2, 1, padding_mode="reflect"), (4, 6, 8, 8)),
    "overlapping": (lambda: nn.ConvTranspose2d(8, 6, 4, 2, 1, output_padding=1), (4, 8, 4, 4)),
    "spectral already": (lambda: spectral_norm(nn.Conv2d(6, 8, 4, 2, 1)), (4, 6, 8, 8)),
    "spectral thereafter": (lambda: nn.Conv2d(6, 8, 4, 2, 1, bias=False), (4, 6, 8, 8)),
}


def pair(name: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """A layer, the same one hastened, and images for them."""
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    plain = nn.Sequential(make()).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    speed_up_strided(fast)
    if name == "spectral thereafter":
        for net in (plain, fast):
            torch.manual_seed(1)  # of its power iteration
            spectral_norm(net[0])
    return plain, fast, torch.randn(shape)


def played(net: nn.Module, images: Tensor) -> list[Tensor]:
    """What it gives, its gradients, and those of R1's penalty, which differentiates twice."""
    images = images.clone().requires_grad_()
    given = net(images)
    (slope,) = torch.autograd.grad(given.float().square().sum(), images, create_graph=True)
    slope.square().sum().backward()
    assert images.grad is not None
    slopes = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    return [given.float(), slope.detach(), images.grad, *slopes]


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("side", [4, 18])
def test_the_three_derivatives_are_each_others(channels: int, side: int) -> None:
    torch.manual_seed(0)
    count = 2 if side == 4 else 1
    x = torch.randn(count, channels, side, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(count, 5, side // 2, 2, dtype=torch.float64, requires_grad=True)
    w = torch.randn(5, channels, 4, 4, dtype=torch.float64, requires_grad=True)
    small, large = strided._Small.apply(x, w), strided._Large.apply(y, w)
    torch.testing.assert_close(small, functional.conv2d(x, w, None, 2, 1))
    torch.testing.assert_close(large, functional.conv_transpose2d(y, w, None, 2, 1))
    torch.testing.assert_close(
        strided._WeightSlope.apply(y, x), torch.nn.grad.conv2d_weight(x, (5, channels, 4, 4), y, 2, 1)
    )
    for function, given in (
        (strided._Small, (x, w)),
        (strided._Large, (y, w)),
        (strided._WeightSlope, (y, x)),
    ):
        assert torch.autograd.gradcheck(function.apply, given, fast_mode=True)
        assert torch.autograd.gradgradcheck(function.apply, given, fast_mode=True)


@pytest.mark.parametrize("name", LAYERS)
def test_a_hastened_layer_plays_the_same(name: str) -> None:
    """To bfloat16's rounding, which either way has of its own."""
    plain, fast, images = pair(name)
    exact = played(copy.deepcopy(plain), images)
    with torch.autocast("cpu", torch.bfloat16):
        theirs, ours = played(plain, images), played(fast, images)
    for number, other, own in zip(exact, theirs, ours, strict=True):
        rounding, off = (other - number).norm(), (own - number).norm()
        assert off <= 1.5 * rounding + 1e-6 * number.norm()


@pytest.mark.parametrize("name", LAYERS)
def test_in_float32_nothing_changes(name: str) -> None:
    plain, fast, images = pair(name)
    assert plain.state_dict().keys() == fast.state_dict().keys()
    for other, own in zip(played(plain, images), played(fast, images), strict=True):
        assert torch.equal(other, own)


def test_what_has_no_faster_way_is_left_to_torch() -> None:
    left = {"halving an odd side", "three by three", "grouped", "reflecting", "overlapping"}
    left |= {"spectral already"}
    made = {name: pair(name)[1:] for name in LAYERS}
    assert {name for name, (fast, images) in made.items() if not _takes_products(fast, images)} == left


def test_a_trials_networks_take_products() -> None:
    config = TrialConfig(architecture="dcgan", norm_d="spectral", width_g=8, width_d=8)
    generator, discriminator = build_networks(config, ImageShape(16, 1, 0))
    assert _takes_products(generator, torch.randn(2, config.z_dim))
    assert _takes_products(discriminator, torch.randn(2, 1, 16, 16))


def test_a_penaltys_first_pass_asks_for_no_gradient_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fast, images = pair("halving")
    asked = []
    slope = strided._WeightSlope.apply
    monkeypatch.setattr(strided._WeightSlope, "apply", lambda *args: asked.append(1) or slope(*args))
    images.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        (at,) = torch.autograd.grad(fast(images).float().square().sum(), images, create_graph=True)
    assert asked == []
    at.square().sum().backward()
    assert asked


def _takes_products(fast: nn.Module, images: Tensor) -> bool:
    with torch.autocast("cpu", torch.bfloat16):
        node = fast(images).grad_fn
    names, todo = set[str](), [node]
    while todo:
        at = todo.pop()
        if at is not None:
            names.add(type(at).__name__)
            todo += [before for before, _ in at.next_functions]
    return not any("ConvolutionBackward" in name for name in names)
