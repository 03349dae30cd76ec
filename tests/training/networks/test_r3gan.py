"""R3GAN's networks: the published sizes, groups, and a resampling filter whose gradients are its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import conv2d

from pipeline.config import TrialConfig
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks
from pipeline.training.networks.r3gan import Bottleneck, Downsample, groups_of, stage_widths


@pytest.mark.parametrize(
    ("size", "width", "widths"),
    [
        (32, 768, [768] * 4),  # CIFAR-10
        (64, 384, [768] * 4 + [384]),  # FFHQ-64
        (256, 96, [768] * 4 + [384, 192, 96]),  # FFHQ-256
        (64, 1536, [1536] * 5),  # ImageNet-64
    ],
)
def test_published_widths(size: int, width: int, widths: list[int]) -> None:
    assert stage_widths(size, width, "r3gan") == (4, widths)


def test_as_many_parameters_as_in_the_published_code() -> None:
    """For each block 2w^2 + 9 * 2w * 16 + 2w^2 weights and 2 * 2w biases; bases, 1x1 and linear layers."""
    widths = [256, 128, 64, 32]
    blocks = sum(2 * (4 * w * w + 288 * w + 4 * w) for w in widths)
    changes = 256 * 128 + 128 * 64 + 64 * 32
    config = TrialConfig(architecture="r3gan", width_g=32, width_d=32, depth_g=2, depth_d=2)
    networks = build_networks(config, ImageShape(32, 3))
    found = [sum(p.numel() for p in network.parameters()) for network in networks]
    basis, rgb, head = 256 * 16, 3 * 32, 256 + 1
    assert found == [blocks + changes + basis + rgb + 64 * 256, blocks + changes + basis + rgb + head]


@pytest.mark.parametrize(("channels", "groups"), [(1536, 96), (768, 48), (96, 6), (48, 3), (40, 2), (4, 1)])
def test_groups_of_sixteen_channels_or_more(channels: int, groups: int) -> None:
    assert groups_of(channels) == groups


@pytest.mark.parametrize("size", [32, 64, 128])
def test_first_weights_and_shapes(tiny: Any, size: int) -> None:
    config = tiny(architecture="r3gan", width_g=16, width_d=16, depth_g=2, depth_d=2)
    generator, discriminator = build_networks(config, ImageShape(size, 3))
    block = next(module for module in generator.modules() if isinstance(module, Bottleneck))
    stages = {32: 4, 64: 5, 128: 6}[size]
    gain = (2 / 1.04) ** 0.5 * (2 * stages) ** -0.25
    fan_in = block.mix.weight[0].numel()
    assert block.mix.weight.std().item() == pytest.approx(gain / fan_in**0.5, rel=0.05)
    assert not block.last.weight.any()
    with torch.no_grad():
        assert discriminator(generator(torch.randn(2, 8))).shape == (2,)


def test_downsampling_is_a_filter_of_1_3_3_1() -> None:
    spike = torch.zeros(1, 2, 8, 8)
    spike[0, 1, 3, 3] = 64
    expected = torch.zeros(1, 2, 4, 4)
    expected[0, 1, 1:3, 1:3] = torch.tensor([[9.0, 3.0], [3.0, 1.0]])
    assert torch.equal(Downsample()(spike), expected)


def test_gradients_of_the_filter_are_those_of_a_convolution_twice_over() -> None:
    images = torch.randn(2, 2, 8, 8, requires_grad=True)

    def plain(x: torch.Tensor) -> torch.Tensor:
        taps = downsample.taps.expand(2, 1, 4, 4)
        return conv2d(x, taps, stride=2, padding=1, groups=2)

    downsample, squares = Downsample(), []
    for down in (downsample, plain):
        (gradient,) = torch.autograd.grad(down(images).pow(3).sum(), images, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), images)
        squares.append(torch.cat([gradient.flatten(), second.flatten()]))
    torch.testing.assert_close(squares[0], squares[1], rtol=1e-4, atol=1e-4)
