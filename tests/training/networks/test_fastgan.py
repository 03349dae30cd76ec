"""FastGAN's networks: which maps excite which, and what D reconstructs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks
from pipeline.training.networks.fastgan import Excitation
from pipeline.training.networks.self_supervision import SelfSupervisedDiscriminator, quarter
from pipeline.training.trainer import Trainer


@pytest.mark.parametrize(
    ("size", "pairs"),
    [
        (16, [(4, 16)]),
        (28, [(7, 28)]),
        (32, [(4, 32)]),
        (64, [(4, 32), (8, 64)]),
        (128, [(4, 64), (8, 128)]),
        (256, [(4, 64), (8, 128), (16, 256)]),
    ],
)
def test_small_maps_excite_large_ones(tiny: Any, size: int, pairs: list[tuple[int, int]]) -> None:
    generator, _ = build_networks(tiny(architecture="fastgan", width_g=2, width_d=2), ImageShape(size, 3))
    found = []
    for module in generator.modules():
        if isinstance(module, Excitation):
            module.register_forward_hook(
                lambda _, inputs, __: found.append((inputs[1].shape[2], inputs[0].shape[2]))
            )
    with torch.no_grad():
        generator(torch.randn(2, 8))
    assert found == pairs


def discriminator_of(tiny: Any, size: int) -> SelfSupervisedDiscriminator:
    _, discriminator = build_networks(tiny(architecture="fastgan", width_d=4), ImageShape(size, 3))
    assert isinstance(discriminator, SelfSupervisedDiscriminator)
    return discriminator


@pytest.mark.parametrize(("size", "map_side"), [(8, 4), (16, 8), (28, 14), (64, 8), (128, 8)])
def test_the_whole_and_a_quarter_are_reconstructed_at_half_the_size(
    tiny: Any, size: int, map_side: int
) -> None:
    body = discriminator_of(tiny, size).body
    with torch.no_grad():
        maps = body.maps(torch.randn(2, 3, size, size))
        small, large = maps[body.decoders.small], maps[body.decoders.small - 1]
        assert (small.shape[2], large.shape[2]) == (map_side, 2 * map_side)
        assert body.decoders.whole(small).shape == (2, 3, size // 2, size // 2)
        assert body.decoders.part(quarter(large, torch.rand(2, 2))).shape == (2, 3, size // 2, size // 2)


def test_each_image_has_its_own_quarter() -> None:
    images = torch.arange(16.0).view(1, 1, 4, 4).expand(4, 1, 4, 4)
    draws = torch.tensor([[0.1, 0.2], [0.1, 0.5], [0.9, 0.49], [0.5, 0.99]])
    assert quarter(images, draws)[:, 0, 0, 0].tolist() == [0, 2, 8, 10]
    assert quarter(images, draws).shape == (4, 1, 2, 2)


def test_only_the_reals_are_reconstructed_and_logits_stay_the_same(tiny: Any) -> None:
    discriminator, draws = discriminator_of(tiny, 16), torch.rand(3, 2)
    both = torch.randn(6, 3, 16, 16)
    logits, error = discriminator(both, None, draws)
    assert torch.equal(logits, discriminator(both))
    _, alone = discriminator(both[:3], None, draws)
    torch.testing.assert_close(error, alone)


def test_the_error_is_of_what_the_decoders_draw(tiny: Any) -> None:
    """Decoders of zeros are as far off as the images are from 0."""
    discriminator, images = discriminator_of(tiny, 16), torch.randn(4, 3, 16, 16)
    for weight in discriminator.body.decoders.parameters():
        torch.nn.init.zeros_(weight)
    draws = torch.rand(4, 2)
    expected = torch.nn.functional.avg_pool2d(images, 2).abs().mean() + quarter(images, draws).abs().mean()
    torch.testing.assert_close(discriminator(images, None, draws)[1], expected)


@pytest.mark.parametrize("changes", [{"norm_d": "batch"}, {"penalty": "r1"}])
def test_training_reconstructs_better(make_trainer: Callable[..., Trainer], changes: dict[str, str]) -> None:
    trainer = make_trainer(architecture="fastgan", lr_d=1e-2, **changes)
    images = trainer.images[:64].permute(0, 3, 1, 2) / 127.5 - 1
    draws = torch.rand(64, 2)

    def error() -> float:
        with torch.no_grad():
            return float(trainer.D(images, None, draws)[1])

    before = error()
    trainer.advance(1, should_stop=lambda: trainer.d_steps == 30)
    assert error() < 0.7 * before
