"""Building networks: labels, parameters; images as bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.data.dataset import to_float
from pipeline.errors import ConfigError
from pipeline.tables import NETWORKS
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks, to_uint8


@pytest.mark.parametrize("architecture", NETWORKS)
def test_a_conditional_gan_needs_labels(tiny: Any, architecture: str) -> None:
    with pytest.raises(ConfigError, match="labelled") as caught:
        build_networks(tiny(architecture=architecture, conditional=True), ImageShape(8, 1, 0))
    assert "\n" not in str(caught.value)


def test_to_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-1.0, 1.0, 0.0, -2.0, 2.0, 1 / 127.5, 0.49 / 127.5, -0.49 / 127.5])
    images = to_uint8(values.view(1, 1, 2, 4))
    assert images.shape == (1, 2, 4, 1)
    assert images.flatten().tolist() == [0, 255, 128, 0, 255, 129, 128, 127]


def test_every_byte_is_restored() -> None:
    bytes_ = torch.arange(256, dtype=torch.uint8).view(2, 8, 16, 1).expand(2, 8, 16, 3).contiguous()
    assert torch.equal(to_uint8(to_float(bytes_)), bytes_)
    assert to_float(bytes_).aminmax() == (-1, 1)
