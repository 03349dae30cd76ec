"""The sizes that an architecture can draw, against the networks that are built."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.tables import NETWORKS
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks
from pipeline.training.networks.sizes import any_size, can_draw, drawable_sizes, nearest_sizes


def is_built(config: Any, size: int) -> bool:
    try:
        build_networks(config, ImageShape(size, 1))
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("architecture", NETWORKS)
def test_exactly_the_drawable_sizes_are_built(tiny: Any, architecture: str) -> None:
    config = tiny(architecture=architecture, width_g=2, width_d=2)
    for size in (*range(1, 34), 36, 40, 50, 56, 60, 64, 96, 100, 112, 120):
        assert can_draw(architecture, size) is is_built(config, size), size


def test_the_nearest_sizes_are_below_and_above() -> None:
    assert nearest_sizes("dcgan", 100) == (96, 112)
    assert nearest_sizes("resnet", 9) == (8, 10)
    assert nearest_sizes("dcgan", 64) == (64,)
    assert nearest_sizes("mlp", 101) == (101,)
    assert nearest_sizes("dcgan", 5) == (8,)  # no data set has images below 8 px
    assert nearest_sizes("dcgan", 5000) == (4096,)
    assert nearest_sizes("mine:build", 101) == (101,)


def test_all_sizes_of_an_architecture() -> None:
    assert drawable_sizes("resnet")[:9] == (8, 10, 12, 14, 16, 20, 24, 28, 32)
    assert drawable_sizes("mlp") == tuple(range(8, 4097))
    assert any_size() == ("mlp",)


@pytest.mark.parametrize("architecture", [name for name, row in NETWORKS.items() if row.halves])
def test_what_the_error_advises_is_built(tiny: Any, architecture: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_networks(tiny(architecture=architecture), ImageShape(100, 3))
    assert str(caught.value).endswith("; pass --image-size 96 or 112, or search architecture = 'mlp'")
    for size in (96, 112):
        assert is_built(tiny(architecture=architecture, width_g=2, width_d=2), size)
