"""Time and memory of a trial, from a few real steps."""

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


def test_the_speed_of_a_trial_alone() -> None:
    found = TrialProfile(seconds_per_kimg=2.0, eval_seconds=5.0, memory_bytes=1, device="cpu")
    assert found.speed == TrialSpeed(1, 2.0, 5.0)


def test_a_few_real_steps_and_a_fid_are_measured(
    dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a clock that advances with the trainer: 5 ms per image, and nothing else takes time."""
    made = record_trainers(monkeypatch)
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: 0.005 * made[0].nimg if made else 0.0)
    scores: list[float | None] = []
    score = Evaluator.score
    monkeypatch.setattr(Evaluator, "score", lambda *given: scores.append(score(*given)) or scores[-1])
    found = profile_trial(tiny(), dataset, evaluator, "cpu", threads=1)
    assert found.seconds_per_kimg == pytest.approx(5.0)
    assert found.eval_seconds == 0.0
    assert len(scores) == 1
    assert scores[0] is not None
    assert 100 * 2**20 < found.memory_bytes < 64 * 2**30  # a process with torch in it
    assert (found.device, found.device_bytes) == ("cpu", 0)


@pytest.mark.parametrize(
    ("max_seconds", "timed"),
    [(1e9, 64), (0.0, 1), (0.25, 3)],  # all steps of a lazy penalty; the least possible; as many as fit
)
def test_slow_steps_are_timed_for_a_limited_time(
    dataset: Dataset,
    evaluator: Evaluator,
    tiny: Callable[..., TrialConfig],
    monkeypatch: pytest.MonkeyPatch,
    max_seconds: float,
    timed: int,
) -> None:
    """A step takes 0.1 s by the clock."""
    made = record_trainers(monkeypatch)
    config = tiny(penalty="r1", penalty_interval=64, batch_size=2)
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: 0.05 * made[0].nimg if made else 0.0)
    found = profile_trial(config, dataset, evaluator, "cpu", threads=1, seconds=max_seconds)
    assert found.seconds_per_kimg == pytest.approx(50.0)
    assert made[0].nimg == 2 * (profiling.UNTIMED_STEPS + timed)


def record_trainers(monkeypatch: pytest.MonkeyPatch) -> list[Trainer]:
    """The trainers that are made from here on."""
    made: list[Trainer] = []

    def make(*given: Any, **named: Any) -> Trainer:
        made.append(Trainer(*given, **named))
        return made[-1]

    monkeypatch.setattr(trial, "Trainer", make)
    return made


def test_no_trainer_is_referenced_when_memory_is_released(
    dataset: Dataset,
    evaluator: Evaluator,
    tiny: Callable[..., TrialConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, left = list[Any](), list[int]()

    def make(*given: Any, **named: Any) -> Trainer:
        trainer = Trainer(*given, **named)
        made.append(weakref.ref(trainer))
        return trainer

    def release(device: torch.device) -> None:
        gc.collect()
        left.append(sum(trainer() is not None for trainer in made))

    monkeypatch.setattr(trial, "Trainer", make)
    monkeypatch.setattr(profiling, "release_memory", release)
    profile_trial(tiny(), dataset, evaluator, "cpu", threads=1)
    profile_sharing_gpu(tiny(), dataset, evaluator, "cpu", 1, time.time, 0.1)
    assert (len(made), left) == (2, [0, 0])


def test_images_are_placed_as_in_a_trial(
    dataset: Dataset,
    evaluator: Evaluator,
    tiny: Callable[..., TrialConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The trainer gets what `place_images` returns, and the requested device."""
    elsewhere, given = torch.from_numpy(dataset.train), list[Any]()

    def make(*all_of: Any, **named: Any) -> Trainer:
        given.extend(all_of)
        return Trainer(*all_of, **named)

    monkeypatch.setattr(trial, "place_images", lambda images, device: elsewhere)
    monkeypatch.setattr(trial, "Trainer", make)
    profile_trial(tiny(), dataset, evaluator, "cpu", threads=1)
    assert given[1] is elsewhere
    assert given[4] == torch.device("cpu")


def test_trials_train_from_a_common_moment(
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


def test_a_trial_that_is_too_late_reports_no_images(
    dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig]
) -> None:
    found = profile_sharing_gpu(tiny(), dataset, evaluator, "cpu", 1, lambda: time.time() - 60, 0.5)
    assert found.images == 0


def test_the_combined_speed_of_trials() -> None:
    """3000 images a second among two: each of them takes 2/3 s for a kimg."""
    speed = combined_speed([SharedGpuSample(2000, 1.0, 0.5), SharedGpuSample(2000, 2.0, 1.5)])
    assert (speed.trials, speed.seconds_per_kimg, speed.eval_seconds) == (2, pytest.approx(2 / 3), 1.0)


@pytest.mark.parametrize(
    ("error", "start"),
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
def test_a_profiling_failure_is_one_line_with_the_reason(error: Exception, start: str) -> None:
    assert profiling_failure(error, "cuda").startswith(start)
    assert "\n" not in profiling_failure(error, "cuda")
