"""The largest configuration of a space, and what a few real steps of it tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline import spaces
from pipeline.calibration import Calibration, calibrate, largest
from pipeline.config import TrialConfig
from pipeline.data import Dataset
from pipeline.fid import Evaluator

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
lr_g = { float = [1e-4, 1e-2], log = true }
"""


def test_the_largest_configuration_has_every_heavy_end() -> None:
    config = largest(spaces.parse(SPACE))
    assert (config.width_g, config.batch_size, config.n_critic) == (64, 128, 3)
    assert (config.penalty, config.gamma, config.penalty_interval) == ("r1", 10.0, 4)


def test_conditions_are_kept() -> None:
    config = largest(
        spaces.parse(SPACE.replace('when = { penalty = ["r1"] }', 'when = { penalty = ["gp"] }'))
    )
    assert (config.penalty, config.gamma) == ("r1", TrialConfig().gamma)


@pytest.mark.parametrize("name", sorted(spaces.shipped_spaces()))
def test_every_shipped_space_has_a_largest(name: str) -> None:
    space = spaces.load(name).on_images(28, True)
    config = largest(space)
    for key, distribution in space.search.items():
        if not distribution.choices and distribution.whole and key.startswith("width"):
            assert getattr(config, key) == distribution.high


def test_a_trial_is_its_kimg_and_its_fids() -> None:
    found = Calibration(seconds_per_kimg=2.0, eval_seconds=5.0, memory_bytes=1, device="cpu")
    assert found.trial_seconds(TrialConfig(kimg=20, tick_kimg=8)) == 20 * 2 + 3 * 5


def test_some_steps_are_measured(
    dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig]
) -> None:
    """Few steps and one fid, for real."""
    found = calibrate(tiny(), dataset, evaluator, "cpu", threads=1)
    assert found.seconds_per_kimg > 0
    assert found.eval_seconds > 0
    assert found.memory_bytes > 100 * 2**20  # a process with torch in it
    assert (found.device, found.device_bytes) == ("cpu", 0)


def test_the_clock_stops_slow_steps(
    dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig]
) -> None:
    slow = tiny(penalty="r1", penalty_interval=64, batch_size=2)
    few = calibrate(slow, dataset, evaluator, "cpu", threads=1, seconds=0.0)
    assert few.seconds_per_kimg > 0
