"""Ticks that are measured while the next one trains: the same records and files. No GPU needed.

A fake `run_overlapped` uses a real thread on the CPU, and the trainer claims to use CUDA graphs.
"""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from trainers import without_times

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import TrialError
from pipeline.metrics.frechet import Evaluator
from pipeline.records import TrialRecord
from pipeline.training import trial
from pipeline.training.checkpoint import TrialFolder, load_best
from pipeline.training.trainer import Trainer

Start = Callable[..., Iterator[TrialRecord]]


@pytest.fixture
def start(dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig], tmp_path: Path) -> Start:
    def run(folder: str, should_stop: Callable[[], bool] = bool, **changes: Any) -> Any:
        config = tiny(**{"kimg": 5, "penalty": "r1", **changes})
        return trial.run_trial(
            config, dataset, evaluator, tmp_path / folder, trial.TrialSettings(should_stop=should_stop)
        )

    return run


class ThreadedOverlap:
    """Runs work in a thread; it waits while `free` is cleared."""

    def __init__(self) -> None:
        self.pool, self.free, self.started = ThreadPoolExecutor(1), threading.Event(), 0
        self.free.set()

    def __call__(self, work: Callable[[], Any], device: torch.device) -> Future[Any]:
        self.started += 1

        def run() -> Any:
            torch.set_num_threads(1)
            assert self.free.wait(30)
            return work()

        return self.pool.submit(run)


@pytest.fixture
def overlap(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedOverlap]:
    threaded = ThreadedOverlap()
    monkeypatch.setattr(trial, "run_overlapped", threaded)
    monkeypatch.setattr(Trainer, "uses_cuda_graphs", property(lambda self: True))
    yield threaded
    threaded.pool.shutdown()


def weights_of(folder: Path) -> list[torch.Tensor]:
    state = TrialFolder(folder).restore()
    assert state is not None
    return [
        *state["trainer"]["G"].values(),
        *state["trainer"]["D"].values(),
        *load_best(folder)["ema"].values(),
    ]


def test_records_and_checkpoints_equal_those_without_overlap(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = list(start("plain"))
    threaded = ThreadedOverlap()
    monkeypatch.setattr(trial, "run_overlapped", threaded)
    monkeypatch.setattr(Trainer, "uses_cuda_graphs", property(lambda self: True))
    records = []
    for record in start("overlapped"):
        records.append(record)
        assert without_times(TrialFolder(tmp_path / "overlapped").records()) == without_times(records)
    threaded.pool.shutdown()
    assert threaded.started == 4  # nothing trains during the last one
    assert without_times(records) == without_times(plain)
    for ours, theirs in zip(weights_of(tmp_path / "overlapped"), weights_of(tmp_path / "plain"), strict=True):
        assert torch.equal(ours, theirs)


def test_a_record_is_yielded_as_soon_as_it_is_measured(
    start: Start, overlap: ThreadedOverlap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the next tick, not at its end; the tick continues after it."""
    at: list[int] = []
    seen: list[Trainer] = []
    build = trial.build_trainer
    monkeypatch.setattr(trial, "build_trainer", lambda *given: seen.append(build(*given)) or seen[-1])
    for record in start("0", kimg=4, tick_kimg=2):
        at.append(seen[-1].nimg)
        assert record.kimg in (2, 4)
    assert 2000 <= at[0] < 4000


@pytest.mark.usefixtures("overlap")
@pytest.mark.parametrize("steps", [1, 40, 70, 110])
def test_a_stopped_trial_resumes_to_the_same_records(start: Start, steps: int) -> None:
    whole = list(start("whole"))
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > steps

    first = list(start("stopped", should_stop=stop))
    rest = list(start("stopped"))
    if first:
        assert without_times(rest[:1]) == without_times(first[-1:])
    known = {record.kimg: record for record in (*first, *rest)}
    assert without_times(list(known.values())) == without_times(whole)


def test_closing_a_trial_waits_for_the_measurement(
    start: Start, overlap: ThreadedOverlap, tmp_path: Path
) -> None:
    records_of_trial = start("0")
    next(records_of_trial)
    records_of_trial.close()
    assert len(TrialFolder(tmp_path / "0").records()) == 1
    overlap.free.clear()
    threading.Timer(0.3, overlap.free.set).start()
    records_of_trial = start("1", should_stop=lambda: overlap.started == 2)
    assert [record.kimg for record in records_of_trial] == [1]
    assert len(TrialFolder(tmp_path / "1").records()) == 1


@pytest.mark.parametrize(
    ("error", "repeats"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_a_measurement_without_memory_is_repeated_without_graphs(
    start: Start,
    overlap: ThreadedOverlap,
    monkeypatch: pytest.MonkeyPatch,
    error: RuntimeError,
    repeats: bool,
) -> None:
    plain = without_times(list(start("plain")))
    score, failed, dropped = Evaluator.score, [0], [0]

    def full(self: Evaluator, sample: Any) -> Any:
        if threading.current_thread() is not threading.main_thread() and not failed[0]:
            failed[0] += 1
            raise error
        return score(self, sample)

    monkeypatch.setattr(Evaluator, "score", full)
    monkeypatch.setattr(Trainer, "drop_graphs", lambda self: dropped.__setitem__(0, dropped[0] + 1))
    if not repeats:
        with pytest.raises(RuntimeError, match="illegal"):
            list(start("0"))
        return
    assert without_times(list(start("0"))) == plain
    assert failed == [1]
    assert dropped == [1]


def test_seconds_of_an_interrupted_tick_count_once(
    start: Start, overlap: ThreadedOverlap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is measured during the next one."""
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 20

    assert list(start("0", should_stop=stop)) == []
    restore = TrialFolder.restore

    def with_earlier_seconds(folder: TrialFolder) -> Any:
        state = restore(folder)
        state["progress"]["tick_seconds"] = 100.0
        return state

    monkeypatch.setattr(TrialFolder, "restore", with_earlier_seconds)
    records = list(start("0"))
    spent = [b.train_seconds - a.train_seconds for a, b in itertools.pairwise(records)]
    assert 100 < records[0].train_seconds < 150
    assert max(spent) < 50


class LimitedSteps:
    """Makes every step after the first `steps` run out of memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
        train_step = Trainer._train_step
        self.left = steps

        def limited(trainer: Trainer, *given: Any) -> None:
            train_step(trainer, *given)
            self.left -= 1
            if self.left < 0:
                raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(Trainer, "_train_step", limited)


def test_a_trial_that_fails_for_lack_of_memory_yields_its_last_record_first(
    start: Start, overlap: ThreadedOverlap, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    LimitedSteps(monkeypatch, 40)
    records: list[int] = []
    records_of_trial = (record.kimg for record in start("0", batch_size=32))
    with pytest.raises(TrialError, match="too small even for batches in 2 parts"):
        records.extend(records_of_trial)
    assert records == [r.kimg for r in TrialFolder(tmp_path / "0").records()] == [1]


def test_a_stop_after_a_step_without_memory_saves_no_incomplete_step(
    start: Start, overlap: ThreadedOverlap, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(start("whole"))
    with monkeypatch.context() as patch:
        full = LimitedSteps(patch, 50)
        first = list(start("0", should_stop=lambda: full.left < 0))
    rest = list(start("0"))
    known = {record.kimg: record for record in (*first, *rest)}
    assert without_times(list(known.values())) == without_times(whole)


def test_memory_of_a_failed_measurement_is_free_when_it_is_repeated(
    start: Start, overlap: ThreadedOverlap, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, seen, alive = Evaluator.score, [], []

    def full(self: Evaluator, sample: Any) -> Any:
        if not seen:
            working = torch.zeros(1000)  # memory of a measurement
            seen.append(weakref.ref(working))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score(self, sample)

    def drop_graphs(self: Trainer) -> None:
        gc.collect()
        alive.append(seen[0]() is not None)

    monkeypatch.setattr(Evaluator, "score", full)
    monkeypatch.setattr(Trainer, "drop_graphs", drop_graphs)
    assert len(list(start("0"))) == 5
    assert alive == [False]


def test_without_memory_for_copies_a_tick_is_measured_before_the_next_one(
    start: Start, overlap: ThreadedOverlap, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = without_times(list(start("plain")))
    started = overlap.started

    def full(tree: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trial, "cloned_state", full)
    assert without_times(list(start("0"))) == plain
    assert overlap.started == started
