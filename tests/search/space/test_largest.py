"""The most expensive configuration of a space."""

from __future__ import annotations

import pytest
from factories import image_facts

from pipeline.config import TrialConfig
from pipeline.search.space.builtin import builtin_spaces, load_space
from pipeline.search.space.largest import largest_config
from pipeline.search.space.parser import parse_space

SPACE = """
[fixed]
kimg = 20
tick_kimg = 8
[search]
width_g = { int = [16, 64], log = true }
batch_size = { choice = [32, 128, 64] }
loss = { choice = ["hinge", "nonsaturating"] }
penalty = { choice = ["r1", "none", "gp"] }
gamma = { float = [0.1, 10.0], when = { penalty = ["r1"] } }
penalty_interval = { int = [4, 16], when = { penalty = ["r1"] } }
n_critic = { int = [1, 3] }
architecture = { choice = ["dcgan", "mine:build", "resnet"] }
precision = { choice = ["float32", "bfloat16"] }
norm_d = { choice = ["layer", "none"] }
lr_g = { float = [1e-4, 1e-2], log = true }
"""


def test_the_largest_configuration_has_the_most_expensive_values() -> None:
    config = largest_config(parse_space(SPACE))
    assert (config.width_g, config.batch_size, config.n_critic) == (64, 128, 3)
    assert (config.penalty, config.gamma, config.penalty_interval) == ("r1", 10.0, 4)
    assert (config.architecture, config.precision, config.norm_d) == ("mine:build", "float32", "layer")


def test_inactive_parameters_keep_their_defaults() -> None:
    space = parse_space(SPACE.replace('when = { penalty = ["r1"] }', 'when = { penalty = ["gp"] }'))
    config, default = largest_config(space), TrialConfig()
    assert config.penalty == "r1"
    assert (config.gamma, config.penalty_interval) == (default.gamma, default.penalty_interval)
    assert (config.gamma, config.penalty_interval) != (10.0, 4)


@pytest.mark.parametrize("name", sorted(builtin_spaces()))
def test_every_builtin_space_has_a_largest_configuration(name: str) -> None:
    """Of its own values, and with the largest batch and the widest networks."""
    space = load_space(name).on_images(image_facts(28, classes=10))
    config = largest_config(space)
    for key, distribution in space.search.items():
        value = getattr(config, key)
        if distribution.choices:
            assert value in (*distribution.choices, getattr(TrialConfig(), key))
            if key == "batch_size":
                assert value == max(distribution.choices)
        elif key.startswith("width"):
            assert value == distribution.high
