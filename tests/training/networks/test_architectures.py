"""Every built-in architecture in every size: shapes, ranges, initialisation, norms of D."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from pipeline.config import TrialConfig
from pipeline.errors import ConfigError
from pipeline.tables import NETWORKS
from pipeline.training.networks.architectures import _Residual
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks
from pipeline.training.networks.r3gan import Bottleneck

ARCHITECTURES = tuple(NETWORKS)
HALVING = [name for name, row in NETWORKS.items() if row.halves]
SIZES = [("mlp", 17), ("mlp", 9)] + [(name, size) for name in ARCHITECTURES for size in (8, 16, 28, 32, 64)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize(("architecture", "size"), SIZES)
def test_shapes_and_ranges(tiny: Any, architecture: str, size: int, conditional: bool) -> None:
    for channels in (1, 3):
        config = tiny(architecture=architecture, conditional=conditional, width_g=2, width_d=2)
        generator, discriminator = build_networks(config, ImageShape(size, channels, 5))
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


@pytest.mark.parametrize("architecture", HALVING)
@pytest.mark.parametrize("size", [4, 7, 9, 17, 18, 30, 31, 33, 100 + 1, 36])
def test_sizes_that_an_architecture_cannot_draw(tiny: Any, architecture: str, size: int) -> None:
    with pytest.raises(ConfigError) as caught:
        build_networks(tiny(architecture=architecture), ImageShape(size, 1))
    line = str(caught.value)
    assert "\n" not in line
    assert f"{architecture} cannot draw images of {size} px" in line
    assert "mlp" in line


@pytest.mark.parametrize("architecture", HALVING)
@pytest.mark.parametrize("size", [10, 12, 14, 20, 24, 48, 56])
def test_sizes_of_four_to_seven_times_a_power_of_two(tiny: Any, architecture: str, size: int) -> None:
    generator, discriminator = build_networks(tiny(architecture=architecture), ImageShape(size, 1))
    assert discriminator(generator(torch.randn(2, 8))).shape == (2,)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_labels_matter_only_to_conditional_networks(tiny: Any, architecture: str) -> None:
    z, images = torch.randn(4, 8), torch.randn(4, 1, 8, 8)
    zeros, ones = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)
    for conditional in (False, True):
        config = tiny(architecture=architecture, conditional=conditional, norm_g="none")
        generator, discriminator = build_networks(config, ImageShape(8, 1, 3))
        assert torch.equal(generator(z, zeros), generator(z, ones)) is not conditional
        assert torch.equal(discriminator(images, zeros), discriminator(images, ones)) is not conditional


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("field", ["width_g", "width_d", "depth_g", "depth_d"])
def test_widths_and_depths_change_one_network(tiny: Any, architecture: str, field: str) -> None:
    def sizes(**changes: int) -> list[int]:
        networks = build_networks(tiny(architecture=architecture, **changes), ImageShape(16, 1))
        return [parameters_to_vector(network.parameters()).numel() for network in networks]

    base, more = sizes(), sizes(**{field: 8})
    changed = 0 if field.endswith("g") else 1
    assert more[changed] > base[changed]
    assert more[1 - changed] == base[1 - changed]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("field", ["norm_g", "norm_d"])
def test_exactly_the_norms_of_its_row_change_an_architecture(
    tiny: Any, architecture: str, field: str
) -> None:
    def layers(norm: str) -> list[str]:
        config = tiny(**{"architecture": architecture, "norm_g": "none", "norm_d": "none", field: norm})
        return [str(network) for network in build_networks(config, ImageShape(16, 1))]

    choices = TrialConfig.fields()[field].metadata["choices"]
    effective = [norm for norm in choices if norm == "none" or layers(norm) != layers("none")]
    assert effective == list(getattr(NETWORKS[architecture], field))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_initialisation_follows_the_seed(tiny: Any, architecture: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        networks = build_networks(tiny(architecture=architecture, conditional=True), ImageShape(8, 1, 3))
        return torch.cat([p.detach().flatten() for n in networks for p in n.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_signals_keep_their_scale_through_a_fresh_network(tiny: Any, architecture: str) -> None:
    """He initialisation: neither vanishing nor saturated, though the networks are 4 layers deep."""
    config = tiny(architecture=architecture, width_g=32, width_d=32, norm_g="none", z_dim=64)
    generator, discriminator = build_networks(config, ImageShape(32, 1))
    assert 0.2 < generator.body(torch.randn(64, 64)).std() < 3
    assert 0.1 < discriminator(torch.randn(64, 1, 32, 32)).std() < 3


@pytest.mark.parametrize(("architecture", "block"), [("resnet", _Residual), ("r3gan", Bottleneck)])
def test_residual_blocks_are_initialised_as_the_identity(
    tiny: Any, architecture: str, block: type[nn.Module]
) -> None:
    shallow, deep = (
        build_networks(tiny(architecture=architecture, depth_d=d), ImageShape(8, 1))[1] for d in (1, 3)
    )
    others = [[m for m in network.body if not isinstance(m, block)] for network in (shallow, deep)]
    for source, target in zip(*others, strict=True):
        target.load_state_dict(source.state_dict())
    deep.head.load_state_dict(shallow.head.state_dict())
    images = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(shallow(images), deep(images))


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm2d), ("layer", nn.GroupNorm), ("none", type(None))]
)
def test_norms_of_d(tiny: Any, norm: str, kind: type) -> None:
    _, discriminator = build_networks(tiny(norm_d=norm), ImageShape(16, 1))
    norms = {type(m) for m in discriminator.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)}
    assert norms == ({kind} if norm != "none" else set())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "spectral"])
def test_every_norm_of_d_gives_scores_and_gradients(tiny: Any, architecture: str, norm: str) -> None:
    _, discriminator = build_networks(
        tiny(architecture=architecture, norm_d=norm, conditional=True), ImageShape(16, 1, 3)
    )
    scores = discriminator(torch.randn(6, 1, 16, 16), torch.arange(6) % 3)
    assert scores.isfinite().all()
    assert scores.std() > 0
    torch.autograd.backward(scores.square().sum())
    assert all(p.grad.isfinite().all() for p in discriminator.parameters() if p.grad is not None)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_spectral_norm_against_svd(tiny: Any, architecture: str) -> None:
    config = tiny(architecture=architecture, norm_d="spectral", conditional=True)
    _, discriminator = build_networks(config, ImageShape(8, 1, 3))
    count = 0
    for module in discriminator.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            raw = module.parametrizations.weight.original
            for _ in range(300):
                weight = module.weight
            top = torch.linalg.svdvals(weight.detach().flatten(1))[0].item()
            assert top == pytest.approx(1, abs=2e-3)
            expected = raw / torch.linalg.svdvals(raw.flatten(1))[0]
            torch.testing.assert_close(weight, expected, atol=2e-3, rtol=0)
            count += 1
    assert count >= 3
