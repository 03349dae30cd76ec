"""Convolutions as matrix products: the same values and derivatives; other layers are unchanged."""

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
    "from one pixel": (lambda: nn.ConvTranspose2d(10, 6, 4, 1, 0), (4, 10, 1, 1)),
    "three by three": (lambda: nn.Conv2d(6, 8, 3, 1, 1), (4, 6, 8, 8)),
    "grouped": (lambda: nn.Conv2d(6, 8, 4, 2, 1, groups=2), (4, 6, 8, 8)),
    "reflecting": (lambda: nn.Conv2d(6, 8, 4, 2, 1, padding_mode="reflect"), (4, 6, 8, 8)),
    "overlapping": (lambda: nn.ConvTranspose2d(8, 6, 4, 2, 1, output_padding=1), (4, 8, 4, 4)),
    "spectral norm before": (lambda: spectral_norm(nn.Conv2d(6, 8, 4, 2, 1)), (4, 6, 8, 8)),
    "spectral norm after": (lambda: nn.Conv2d(6, 8, 4, 2, 1, bias=False), (4, 6, 8, 8)),
}


def pair(name: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """A layer, the same layer with matrix products, and inputs for them."""
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    plain = nn.Sequential(make()).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    speed_up_strided(fast)
    if name == "spectral norm after":
        for net in (plain, fast):
            torch.manual_seed(1)  # for its power iteration
            spectral_norm(net[0])
    return plain, fast, torch.randn(shape)


def outputs_and_gradients(net: nn.Module, images: Tensor) -> list[Tensor]:
    """The output, its gradient, and the gradients of an R1 penalty, which differentiates twice."""
    images = images.clone().requires_grad_()
    output = net(images)
    (gradient,) = torch.autograd.grad(output.float().square().sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert images.grad is not None
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    return [output.float(), gradient.detach(), images.grad, *gradients]


@pytest.mark.parametrize("channels", [1, 3, 6])
@pytest.mark.parametrize("side", [4, 18])
def test_the_three_functions_are_derivatives_of_each_other(channels: int, side: int) -> None:
    torch.manual_seed(0)
    count = 2 if side == 4 else 1
    x = torch.randn(count, channels, side, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(count, 5, side // 2, 2, dtype=torch.float64, requires_grad=True)
    w = torch.randn(5, channels, 4, 4, dtype=torch.float64, requires_grad=True)
    small, large = strided._StridedConv.apply(x, w), strided._StridedConvTranspose.apply(y, w)
    torch.testing.assert_close(small, functional.conv2d(x, w, None, 2, 1))
    torch.testing.assert_close(large, functional.conv_transpose2d(y, w, None, 2, 1))
    torch.testing.assert_close(
        strided._WeightGrad.apply(y, x), torch.nn.grad.conv2d_weight(x, (5, channels, 4, 4), y, 2, 1)
    )
    for function, inputs in (
        (strided._StridedConv, (x, w)),
        (strided._StridedConvTranspose, (y, w)),
        (strided._WeightGrad, (y, x)),
    ):
        assert torch.autograd.gradcheck(function.apply, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(function.apply, inputs, fast_mode=True)


@pytest.mark.parametrize("name", LAYERS)
def test_a_matrix_product_gives_the_same_values(name: str) -> None:
    """Up to the rounding of bfloat16, which differs between the two."""
    plain, fast, images = pair(name)
    exact = outputs_and_gradients(copy.deepcopy(plain), images)
    with torch.autocast("cpu", torch.bfloat16):
        by_torch, by_product = (outputs_and_gradients(net, images) for net in (plain, fast))
    for value, reference, other in zip(exact, by_torch, by_product, strict=True):
        assert (other - value).norm() <= 1.5 * (reference - value).norm() + 1e-6 * value.norm()


@pytest.mark.parametrize("name", LAYERS)
def test_in_float32_nothing_changes(name: str) -> None:
    plain, fast, images = pair(name)
    assert plain.state_dict().keys() == fast.state_dict().keys()
    reference, other = (outputs_and_gradients(net, images) for net in (plain, fast))
    assert all(map(torch.equal, reference, other))


def test_other_layers_are_left_to_torch() -> None:
    left = {"halving an odd side", "three by three", "grouped", "reflecting", "overlapping"}
    left |= {"spectral norm before"}
    layers = {name: pair(name)[1:] for name in LAYERS}
    assert {name for name, (fast, images) in layers.items() if not _uses_products(fast, images)} == left


def test_the_networks_of_a_trial_use_products() -> None:
    config = TrialConfig(architecture="dcgan", norm_d="spectral", width_g=8, width_d=8)
    generator, discriminator = build_networks(config, ImageShape(16, 1, 0))
    assert _uses_products(generator, torch.randn(2, config.z_dim))
    assert _uses_products(discriminator, torch.randn(2, 1, 16, 16))


def test_the_first_pass_of_a_penalty_computes_no_weight_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    _, fast, images = pair("halving")
    calls = []
    weight_grad = strided._WeightGrad.apply
    monkeypatch.setattr(strided._WeightGrad, "apply", lambda *args: calls.append(1) or weight_grad(*args))
    images.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        (gradient,) = torch.autograd.grad(fast(images).float().square().sum(), images, create_graph=True)
    assert calls == []
    gradient.square().sum().backward()
    assert calls


def _uses_products(fast: nn.Module, images: Tensor) -> bool:
    with torch.autocast("cpu", torch.bfloat16):
        node = fast(images).grad_fn
    names, todo = set[str](), [node]
    while todo:
        current = todo.pop()
        if current is not None:
            names.add(type(current).__name__)
            todo += [before for before, _ in current.next_functions]
    return not any("ConvolutionBackward" in name for name in names)
