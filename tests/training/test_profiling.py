"""The largest configuration of a space, and what a few real steps of it tell."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics.frechet import Evaluator
from pipeline.search.space.builtin import builtin_spaces, load_space
from pipeline.search.space.largest import largest_config
from pipeline.search.space.parser import parse_space
from pipeline.training import profiling, trial
from pipeline.training.profiling import (
    SharedGpuSample,
    TrialProfile,
    combined_speed,
    profile_sharing_gpu,
    profile_trial,
    profiling_failure,
)
from pipeline.training.trainer import Trainer
from pipeline.training.trial_speed import TrialSpeed

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
    config = largest_config(parse_space(SPACE))
    assert (config.width_g, config.batch_size, config.n_critic) == (64, 128, 3)
    assert (config.penalty, config.gamma, config.penalty_interval) == ("r1", 10.0, 4)


def test_conditions_are_kept() -> None:
    config = largest_config(
        parse_space(SPACE.replace('when = { penalty = ["r1"] }', 'when = { penalty = ["gp"] }'))
    )
    assert (config.penalty, config.gamma) == ("r1", TrialConfig().gamma)


@pytest.mark.parametrize("name", sorted(builtin_spaces()))
def test_every_shipped_space_has_a_largest(name: str) -> None:
    space = load_space(name).on_images(28, True)
    config = largest_config(space)
    for key, distribution in space.search.items():
        if not distribution.choices and distribution.whole and key.startswith("width"):
            assert getattr(config, key) == distribution.high


def test_alone_it_has_a_pace() -> None:
    found = TrialProfile(seconds_per_kimg=2.0, eval_seconds=5.0, memory_bytes=1, device="cpu")
    assert found.pace == TrialSpeed(1, 2.0, 5.0)


def test_some_steps_are_measured(
    dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig]
) -> None:
    """Few steps and one fid, for real."""
    found = profile_trial(tiny(), dataset, evaluator, "cpu", threads=1)
    assert found.seconds_per_kimg > 0
    assert found.eval_seconds > 0
    assert found.memory_bytes > 100 * 2**20  # a process with torch in it
    assert (found.device, found.device_bytes) == ("cpu", 0)


def test_the_clock_stops_slow_steps(
    dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig]
) -> None:
    slow = tiny(penalty="r1", penalty_interval=64, batch_size=2)
    few = profile_trial(slow, dataset, evaluator, "cpu", threads=1, seconds=0.0)
    assert few.seconds_per_kimg > 0


def test_nothing_of_it_stays(
    dataset: Dataset,
    evaluator: Evaluator,
    tiny: Callable[..., TrialConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, left = list[Any](), list[int]()

    def noted(*given: Any, **named: Any) -> Trainer:
        trainer = Trainer(*given, **named)
        made.append(weakref.ref(trainer))
        return trainer

    def release(device: torch.device) -> None:
        gc.collect()
        left.append(sum(trainer() is not None for trainer in made))

    monkeypatch.setattr(trial, "Trainer", noted)
    monkeypatch.setattr(profiling, "release_memory", release)
    profile_trial(tiny(), dataset, evaluator, "cpu", threads=1)
    profile_sharing_gpu(tiny(), dataset, evaluator, "cpu", 1, time.time, 0.1)
    assert (len(made), left) == (2, [0, 0])


def test_images_lie_where_a_trial_has_them(
    dataset: Dataset,
    evaluator: Evaluator,
    tiny: Callable[..., TrialConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What `trial.place` gives is trained on, on the device that was asked for."""
    elsewhere, given = torch.from_numpy(dataset.train), list[Any]()

    def noted(*all_of: Any, **named: Any) -> Trainer:
        given.extend(all_of)
        return Trainer(*all_of, **named)

    monkeypatch.setattr(trial, "place_images", lambda images, device: elsewhere)
    monkeypatch.setattr(trial, "Trainer", noted)
    profile_trial(tiny(), dataset, evaluator, "cpu", threads=1)
    assert given[1] is elsewhere
    assert given[4] == torch.device("cpu")


def test_trials_train_from_a_common_moment_on(
    dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig]
) -> None:
    called = list[float]()

    def gate() -> float:
        called.append(time.time())
        return called[0] + 0.3

    found = profile_sharing_gpu(tiny(batch_size=8), dataset, evaluator, "cpu", 1, gate, 0.5)
    assert time.time() >= called[0] + 0.8
    assert found.images > 0
    assert found.images % 8 == 0
    assert 0 < found.seconds < 5
    assert found.eval_seconds > 0


def test_who_comes_too_late_reports_no_images(
    dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig]
) -> None:
    found = profile_sharing_gpu(tiny(), dataset, evaluator, "cpu", 1, lambda: time.time() - 60, 0.5)
    assert found.images == 0


def test_the_pace_of_many_is_their_common_speed() -> None:
    """3000 images a second among two: each of them takes 2/3 s for a kimg."""
    pace = combined_speed([SharedGpuSample(2000, 1.0, 0.5), SharedGpuSample(2000, 2.0, 1.5)])
    assert (pace.trials, pace.seconds_per_kimg, pace.eval_seconds) == (2, pytest.approx(2 / 3), 1.0)
    with pytest.raises(ValueError, match="no image"):
        combined_speed([SharedGpuSample(0, 1.0, 0.5)])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried 9 GiB.\nmore"),
            "the largest trial does not fit the GPU: CUDA out of memory. Tried 9 GiB.",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "the largest trial does not fit the GPU: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling",
        ),
        (RuntimeError("shapes differ"), "the largest trial fails: RuntimeError: shapes differ"),
        (AssertionError(), "the largest trial fails: AssertionError: AssertionError"),
    ],
)
def test_a_failure_is_said_as_it_was(error: Exception, said: str) -> None:
    assert profiling_failure(error, "cuda").startswith(said)
    assert "\n" not in profiling_failure(error, "cuda")
