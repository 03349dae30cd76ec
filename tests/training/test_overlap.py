"""A tick that is measured beside the next one's training: the same records and files, nothing lost. No GPU.

The stand-in for `overlap.beside` is a real thread; steps of a CPU count as replayed.
"""

from __future__ import annotations

import dataclasses
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

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import TrialError
from pipeline.metrics.frechet import Evaluator
from pipeline.records import TrialRecord
from pipeline.training import overlap, trial
from pipeline.training.checkpoint import TrialFolder, load_best
from pipeline.training.trainer import Trainer

Start = Callable[..., Iterator[TrialRecord]]


@pytest.fixture
def start(dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig], tmp_path: Path) -> Start:
    def run(
        folder: str, should_stop: Callable[[], bool] = bool, said: list[str] | None = None, **changes: Any
    ) -> Any:
        say = (said if said is not None else []).append
        config = tiny(**{"kimg": 5, "penalty": "r1", **changes})
        return trial.run_trial(
            config, dataset, evaluator, tmp_path / folder, should_stop=should_stop, say=say
        )

    return run


class Beside:
    """Work in a thread, which may be held up until it is let go."""

    def __init__(self) -> None:
        self.pool, self.free, self.begun = ThreadPoolExecutor(1), threading.Event(), 0
        self.free.set()

    def __call__(self, work: Callable[[], Any], device: torch.device) -> Future[Any]:
        self.begun += 1

        def act() -> Any:
            torch.set_num_threads(1)
            assert self.free.wait(30)
            return work()

        return self.pool.submit(act)


@pytest.fixture
def besides(monkeypatch: pytest.MonkeyPatch) -> Iterator[Beside]:
    stand = Beside()
    monkeypatch.setattr(trial, "run_overlapped", stand)
    monkeypatch.setattr(Trainer, "records_steps", property(lambda self: True))
    yield stand
    stand.pool.shutdown()


def timeless(records: list[TrialRecord]) -> list[TrialRecord]:
    still = {"images_per_sec": 0.0, "train_seconds": 0.0, "eval_seconds": 0.0}
    return [dataclasses.replace(record, **still) for record in records]


def weights_of(folder: Path) -> list[torch.Tensor]:
    state = TrialFolder(folder).restore()
    assert state is not None
    return [
        *state["trainer"]["G"].values(),
        *state["trainer"]["D"].values(),
        *load_best(folder)["ema"].values(),
    ]


def test_records_and_checkpoints_are_those_of_one_after_the_other(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = list(start("plain"))
    stand = Beside()
    monkeypatch.setattr(trial, "run_overlapped", stand)
    monkeypatch.setattr(Trainer, "records_steps", property(lambda self: True))
    records = []
    for record in start("beside"):
        records.append(record)
        assert timeless(TrialFolder(tmp_path / "beside").records()) == timeless(records)
    stand.pool.shutdown()
    assert stand.begun == 4  # nothing trains beside the last
    assert timeless(records) == timeless(plain)
    for ours, theirs in zip(weights_of(tmp_path / "beside"), weights_of(tmp_path / "plain"), strict=True):
        assert torch.equal(ours, theirs)


def test_a_record_is_given_as_soon_as_it_is_there(
    start: Start, besides: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the next tick, not at its end, and the tick goes on where it was."""
    at: list[int] = []
    seen: list[Trainer] = []
    begin = trial._begin
    monkeypatch.setattr(trial, "_begin", lambda *a: seen.append(begin(*a)[0]) or (seen[-1], *begin(*a)[1:]))
    for record in start("0", kimg=4, tick_kimg=2):
        at.append(seen[-1].nimg)
        assert record.kimg in (2, 4)
    assert 2000 <= at[0] < 4000


@pytest.mark.usefixtures("besides")
@pytest.mark.parametrize("steps", [1, 40, 70, 110])
def test_one_that_is_stopped_goes_on_as_if_it_had_not_been(start: Start, steps: int) -> None:
    whole = list(start("whole"))
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > steps

    first = list(start("stopped", should_stop=stop))
    rest = list(start("stopped"))
    if first:
        assert timeless(rest[:1]) == timeless(first[-1:])
    known = {record.kimg: record for record in (*first, *rest)}
    assert timeless(list(known.values())) == timeless(whole)


def test_a_reader_that_leaves_waits_for_what_is_under_way(
    start: Start, besides: Beside, tmp_path: Path
) -> None:
    course = start("0")
    next(course)
    course.close()
    assert len(TrialFolder(tmp_path / "0").records()) == 1
    besides.free.clear()
    threading.Timer(0.3, besides.free.set).start()
    course = start("1", should_stop=lambda: besides.begun == 2)
    assert [record.kimg for record in course] == [1]
    assert len(TrialFolder(tmp_path / "1").records()) == 1


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_memory_that_ends_beside_training_is_looked_for_alone(
    start: Start, besides: Beside, monkeypatch: pytest.MonkeyPatch, error: RuntimeError, again: bool
) -> None:
    plain = timeless(list(start("plain")))
    score, failed, dropped = Evaluator.score, [0], [0]

    def full(self: Evaluator, sample: Any) -> Any:
        if threading.current_thread() is not threading.main_thread() and not failed[0]:
            failed[0] += 1
            raise error
        return score(self, sample)

    monkeypatch.setattr(Evaluator, "score", full)
    monkeypatch.setattr(Trainer, "release", lambda self: dropped.__setitem__(0, dropped[0] + 1))
    if not again:
        with pytest.raises(RuntimeError, match="illegal"):
            list(start("0"))
        return
    assert timeless(list(start("0"))) == plain
    assert failed == [1]
    assert dropped == [1]


def test_an_interrupted_tick_s_seconds_count_once(
    start: Start, besides: Beside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even while it is measured beside the next one."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 20

    assert list(start("0", should_stop=stop)) == []
    begin = trial._begin

    def long_ago(*given: Any, **named: Any) -> Any:
        trainer, progress, last = begin(*given, **named)
        return trainer, dataclasses.replace(progress, tick_seconds=100.0), last

    monkeypatch.setattr(trial, "_begin", long_ago)
    records = list(start("0"))
    spent = [b.train_seconds - a.train_seconds for a, b in itertools.pairwise(records)]
    assert 100 < records[0].train_seconds < 150
    assert max(spent) < 50


class Full:
    """A trainer's advance that finds no memory after so many steps, each time from the `first` call on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
        real = Trainer._play
        self.left = steps

        def play(trainer: Trainer, *given: Any) -> None:
            real(trainer, *given)
            self.left -= 1
            if self.left < 0:
                raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(Trainer, "_play", play)


def test_a_trial_that_ends_for_lack_of_memory_gives_its_last_record_first(
    start: Start, besides: Beside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Full(monkeypatch, 40)
    records: list[int] = []
    course = (record.kimg for record in start("0", batch_size=32))
    with pytest.raises(TrialError, match="fits its device"):
        records.extend(course)
    assert records == [r.kimg for r in TrialFolder(tmp_path / "0").records()] == [1]


def test_a_stop_in_the_moment_of_lacking_memory_keeps_no_half_step(
    start: Start, besides: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(start("whole"))
    with monkeypatch.context() as patch:
        full = Full(patch, 50)
        first = list(start("0", should_stop=lambda: full.left < 0))
    rest = list(start("0"))
    known = {record.kimg: record for record in (*first, *rest)}
    assert timeless(list(known.values())) == timeless(whole)


def test_memory_of_the_failed_attempt_is_free_when_it_is_tried_again(
    start: Start, besides: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, seen, alive = Evaluator.score, [], []

    def full(self: Evaluator, sample: Any) -> Any:
        if not seen:
            working = torch.zeros(1000)  # what a fid takes
            seen.append(weakref.ref(working))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return score(self, sample)

    def release(self: Trainer) -> None:
        gc.collect()
        alive.append(seen[0]() is not None)

    monkeypatch.setattr(Evaluator, "score", full)
    monkeypatch.setattr(Trainer, "release", release)
    assert len(list(start("0"))) == 5
    assert alive == [False]


def test_without_memory_for_copies_a_tick_is_measured_at_once(
    start: Start, besides: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = timeless(list(start("plain")))
    begun = besides.begun

    def full(tree: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trial, "cloned_state", full)
    assert timeless(list(start("0"))) == plain
    assert besides.begun == begun


def test_a_cpu_works_at_once() -> None:
    device = torch.device("cpu")
    assert overlap.run_overlapped(lambda: 7, device).result(0) == 7
    failed = overlap.run_overlapped(lambda: 1 // 0, device)
    with pytest.raises(ZeroDivisionError):
        failed.result(0)


def test_copied_shares_nothing() -> None:
    tree = {
        "a": torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "b": [1, {"c": torch.zeros(2)}],
        3: "x",
    }
    found = overlap.cloned_state(tree)
    found["a"] += 1
    found["b"][1]["c"] += 1
    assert float(tree["a"].sum()) == 96
    assert float(tree["b"][1]["c"].sum()) == 0
    assert found["a"].stride() == tree["a"].stride()
    assert found[3] == "x"
