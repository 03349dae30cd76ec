"""The schedule of a step: its start and end, the effects of the controller and of ADA."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from pipeline.config import TrialConfig
from pipeline.training.schedules import StepSchedule, cosine_schedule, step_schedule

# R3GAN on CIFAR-10, its numbers as fields of TrialConfig.
R3GAN: dict[str, Any] = {
    "schedule": "cosine", "kimg": 100, "batch_size": 50, "lr_g": 2e-4, "lr_d": 2e-4, "lr_final": 0.25,
    "beta2": 0.9, "beta2_final": 0.99, "gamma": 0.05, "gamma_final": 0.1,
    "ema_halflife_kimg": 5000, "ema_start": 0.0,
    "augment": "diffaugment", "augment_p": 0.55, "augment_start": 0.0,
}  # fmt: skip


def at(shown_kimg: float, control: float = 0.0, ada_p: float = 0.0, **changes: Any) -> StepSchedule:
    return step_schedule(TrialConfig(**changes), round(shown_kimg * 1000), control, ada_p)


def scales(now: StepSchedule) -> dict[str, float]:
    return {name: value for name, value in dataclasses.asdict(now).items() if not isinstance(value, bool)}


@pytest.mark.parametrize(("start", "end"), [(2e-4, 5e-5), (0.0, 0.3), (0.9, 0.99), (1.0, 0.0), (0.7, 0.7)])
def test_half_a_cosine(start: float, end: float) -> None:
    assert [cosine_schedule(start, end, done) for done in (0.0, 1.0, 2.0)] == [start, end, end]
    assert cosine_schedule(start, end, 0.5) == pytest.approx((start + end) / 2)
    path = [cosine_schedule(start, end, i / 100) for i in range(101)]
    assert path == sorted(path, reverse=end < start)
    early, middle = abs(path[1] - path[0]), abs(path[51] - path[50])
    assert early <= 0.02 * middle  # flat at its ends
    if start == end:
        assert set(path) == {start}


@pytest.mark.parametrize("burn_in", [0.0, 40.0])
def test_every_schedule_has_its_endpoints_and_holds_after_the_burn_in(burn_in: float) -> None:
    length = burn_in or 100
    values = (2e-4, 2e-4, 0.9, 0.05, 0.0, 0.0), (5e-5, 5e-5, 0.99, 0.005, 5e6, 0.55)
    for kimg, expected in ((0, values[0]), (length, values[1]), (1000, values[1])):
        seen = scales(at(kimg, burn_in_kimg=burn_in, **R3GAN))
        assert list(seen.values()) == pytest.approx(expected), kimg
    middle = scales(at(length / 2, burn_in_kimg=burn_in, **R3GAN))
    assert list(middle.values()) == pytest.approx([(a + b) / 2 for a, b in zip(*values, strict=True)])


def single(rate: float) -> float:
    """Rounded to float32, as a step in a CUDA graph reads a learning rate."""
    return float(np.float32(rate))


def test_a_constant_schedule_ignores_the_final_values() -> None:
    changes = {**R3GAN, "schedule": "constant"}
    for kimg in (0, 30, 100, 5000):
        rate = single(2e-4)
        assert list(scales(at(kimg, **changes)).values()) == [rate, rate, 0.9, 0.05, 5e6, 0.55]


def test_defaults_are_the_values_of_the_fields_exactly() -> None:
    config = TrialConfig(lr_g=3e-4, gamma=0.3, ema_halflife_kimg=0.7)
    for schedule, nimg in itertools.product(("constant", "cosine"), (0, 12_345, 99_999, 10**7)):
        now = step_schedule(dataclasses.replace(config, schedule=schedule), nimg, 0.0, 0.0)
        assert now == StepSchedule(
            single(3e-4), single(2e-4), 0.999, 0.3, 700.0, 0.0, skip_g=False, skip_d=False
        )


@pytest.mark.parametrize(
    ("augment", "ada_p", "p"),
    [("none", 0.5, 0), ("diffaugment", 0.5, 0.7), ("ada", 0.5, 0.5), ("ada", 0.9, 0.7)],
)
def test_augment_p_is_a_probability_or_an_upper_bound(augment: str, ada_p: float, p: float) -> None:
    assert at(0, ada_p=ada_p, augment=augment, augment_p=0.7).augment_p == p


# ---- the controller


@pytest.mark.parametrize(
    ("control", "lr_g", "lr_d"), [(0, 1, 1), (1, 1, 1 / 8), (-1, 1 / 8, 1), (1 / 3, 1, 0.5)]
)
def test_lr_ratio_slows_only_the_winner(control: float, lr_g: float, lr_d: float) -> None:
    now = at(50, control, controller="lr_ratio", **R3GAN)
    free = at(50, **R3GAN)
    assert (now.lr_g / free.lr_g, now.lr_d / free.lr_d) == pytest.approx((lr_g, lr_d))
    assert not now.skip_g
    assert not now.skip_d


@pytest.mark.parametrize("n_critic", [1, 3])
@pytest.mark.parametrize(
    ("control", "fractions"),
    [(0, (0, 0)), (1, (0, 0.75)), (-1, (0.75, 0)), (2 / 3, (0, 0.5)), (-0.4, (0.3, 0))],
)
def test_skip_omits_a_fraction_of_the_updates_of_the_winner(
    control: float, fractions: tuple[float, float], n_critic: int
) -> None:
    steps = [
        at(0.01 * step, control, controller="skip", batch_size=10, n_critic=n_critic) for step in range(600)
    ]
    skipped_d = sum(now.skip_d for now in steps) / 600
    skipped_g = sum(now.skip_g for now in steps[n_critic - 1 :: n_critic]) / (600 // n_critic)
    assert (skipped_g, skipped_d) == pytest.approx(fractions, abs=1.01 * n_critic / 600)
    assert {now.lr_d for now in steps} == {single(2e-4)}


def test_without_a_controller_its_state_has_no_effect() -> None:
    assert at(7, control=1.0) == at(7)
