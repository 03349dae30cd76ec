"""A trial from its first tick to its last: its records, its files, its events, and how it resumes."""

from __future__ import annotations

import dataclasses
import errno
import functools
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from trainers import without_times

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import ConfigError, TrialError
from pipeline.metrics.frechet import Evaluator
from pipeline.records import METRICS, PENALTY, VERDICTS, TrialRecord
from pipeline.storage import files
from pipeline.training import sampling, trial
from pipeline.training.augmentation import next_augment_p
from pipeline.training.balance import update_controller
from pipeline.training.checkpoint import TrialFolder, best_generator, load_best
from pipeline.training.events import EventKind, OnEvent, TrialEvent, log_event
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.schedules import cosine_schedule
from pipeline.training.trainer import Trainer
from pipeline.training.trial import TrialSettings, run_trial

Start = Callable[..., Iterator[TrialRecord]]

WILD: dict[str, Any] = {
    "architecture": "mlp", "depth_d": 8, "depth_g": 8, "width_d": 64,
    "loss": "lsgan", "lr_g": 1.0, "lr_d": 1.0,
}  # fmt: skip
"""Explodes within 2 kimg."""


@pytest.fixture
def start(dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig], tmp_path: Path) -> Start:
    """start(folder, should_stop, on_event, **changes): `run_trial` of a tiny trial below tmp_path."""

    def run(
        folder: str = "0",
        should_stop: Callable[[], bool] = bool,
        on_event: OnEvent = log_event,
        **changes: Any,
    ) -> Any:
        return run_trial(
            tiny(**changes),
            dataset,
            evaluator,
            tmp_path / folder,
            TrialSettings(number=7, should_stop=should_stop, on_event=on_event),
        )

    return run


@pytest.mark.parametrize(
    ("kimg", "tick", "ticks"),
    [(3, 1, [1, 2, 3]), (3, 2, [2, 3]), (2, 2, [2]), (2, 5, [2]), (5, 3, [3, 5]), (1, 1, [1])],
)
def test_ticks_fall_on_whole_kimg_and_the_last_is_kimg(
    start: Start, tmp_path: Path, kimg: int, tick: int, ticks: list[int]
) -> None:
    records = list(start(architecture="mlp", kimg=kimg, tick_kimg=tick))
    assert [record.kimg for record in records] == ticks
    assert {record.trial for record in records} == {7}
    spent = np.diff([0.0, *(record.train_seconds for record in records)])
    shown = [record.images_per_sec * seconds for record, seconds in zip(records, spent, strict=True)]
    assert shown == pytest.approx(np.diff([0, *ticks]) * 1000)


def test_records_on_disk_equal_those_that_were_yielded(start: Start, tmp_path: Path) -> None:
    records = []
    for record in start(kimg=3, penalty="r1"):
        records.append(record)
        assert TrialFolder(tmp_path / "0").records() == records  # on disk before they are yielded
    lines = (tmp_path / "0" / "records.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [record.to_dict() for record in records]


def test_the_numbers_of_a_record_are_consistent(start: Start) -> None:
    records = list(start(kimg=3, penalty="r1", conditional=True))
    best = math.inf
    for before, record in zip([None, *records], records, strict=False):
        assert record.verdict in VERDICTS
        assert record.fid is not None
        assert math.isfinite(record.fid)
        best = min(best, record.fid)
        assert record.best_fid == record.objective == best
        assert record.best_kimg == next(r.kimg for r in records if r.fid == best)
        assert record.balance == pytest.approx(1 - abs(2 * record.auc - 1))
        assert record.penalty > 0
        assert record.images_per_sec > 0
        seconds = 0.0 if before is None else before.train_seconds
        assert record.train_seconds - seconds == pytest.approx(1000 / record.images_per_sec)
        assert record.eval_seconds > (0.0 if before is None else before.eval_seconds)
        assert -1 <= record.sign_fake <= 1
        assert set(record.metrics()) == set(METRICS)


def test_training_improves_the_fid(start: Start) -> None:
    """Ten kimg at least halve the fid."""
    records = list(start(kimg=10, tick_kimg=5, width_g=16, width_d=16, lr_g=2e-3, lr_d=2e-3))
    (untrained,) = start("untrained", kimg=1, width_g=16, width_d=16, lr_g=1e-7)
    assert records[-1].objective < 0.5 * untrained.objective


def test_files_of_a_finished_trial(start: Start, tmp_path: Path) -> None:
    list(start(kimg=3))
    found = sorted(str(p.relative_to(tmp_path / "0")) for p in (tmp_path / "0").rglob("*") if p.is_file())
    kinds = [name.split("-")[0] for name in found]
    assert kinds.count("state") == 2
    assert kinds.count("best") == 1
    assert [name for name in found if "samples" in name] == [f"samples/00000{k}.png" for k in (1, 2, 3)]
    assert len(found) == 7
    with Image.open(tmp_path / "0" / "samples" / "000003.png") as grid:
        assert grid.size == (80, 40)


def test_the_best_generator_is_that_of_the_lowest_fid(
    start: Start, tmp_path: Path, dataset: Dataset, evaluator: Evaluator
) -> None:
    """Its file gives the same fid again. A high learning rate makes the fid go up and down."""
    records = list(start(kimg=6, lr_g=0.02, lr_d=0.02, conditional=True, ema_halflife_kimg=0.0))
    fids = [record.fid for record in records]
    best = min(records, key=lambda record: record.fid)
    assert fids != sorted(fids, reverse=True), "the last tick is always the best: this tests nothing"
    generator, stored = best_generator(tmp_path / "0")
    assert stored["kimg"] == best.kimg == records[-1].best_kimg
    assert TrialRecord.from_dict(stored["record"]) == best
    assert evaluator.score(sampling.image_sampler(generator, dataset)) == best.fid
    assert TrialConfig.from_dict(stored["config"]).lr_g == 0.02
    assert ImageShape(**stored["shape"]) == ImageShape(8, 1, 3)


# ---- Interruptions


@pytest.mark.parametrize("ticks", [1, 2])
@pytest.mark.parametrize(
    "changes", [{"conditional": True, "norm_d": "batch"}, {"norm_d": "spectral", "n_critic": 2}]
)
def test_an_interrupted_trial_resumes_to_the_same_records(
    start: Start, tmp_path: Path, changes: dict[str, Any], ticks: int
) -> None:
    whole = list(start("whole", kimg=3, **changes))
    running = start("broken", kimg=3, **changes)
    first = [next(running) for _ in range(ticks)]
    running.close()
    second = list(start("broken", kimg=3, **changes))
    assert second[0] == first[-1]
    assert without_times(first + second[1:]) == without_times(whole)
    assert TrialFolder(tmp_path / "broken").records() == first + second[1:]
    assert second[-1].train_seconds > first[-1].train_seconds
    ours, theirs = (load_best(tmp_path / name) for name in ("broken", "whole"))
    assert ours["kimg"] == theirs["kimg"]
    assert all(torch.equal(ours["ema"][name], theirs["ema"][name]) for name in theirs["ema"])


@pytest.mark.parametrize(
    "changes", [{"norm_d": "batch", "conditional": True}, {"penalty": "r1", "n_critic": 2, "augment_p": 0.5}]
)
@pytest.mark.parametrize("stops", [[5], [50], [33, 33], [7, 3, 40]])
def test_a_trial_that_is_stopped_mid_tick_resumes_to_the_same_records(
    start: Start, tmp_path: Path, stops: list[int], changes: dict[str, Any]
) -> None:
    """No step is done twice, and the records are the same bit for bit.

    A tick of 32 steps calls `should_stop` 33 times. The stops: before the first record, at a step, when the
    tick is trained but not measured, and again within the same tick.
    """
    calls: list[int] = []

    def stopped_at(stop: int) -> Callable[[], bool]:
        calls.append(0)

        def should_stop() -> bool:
            calls[-1] += 1
            return calls[-1] >= stop

        return should_stop

    whole = list(start("whole", stopped_at(1000), kimg=3, **changes))
    known: dict[int, TrialRecord] = {}
    for stop in [*stops, 1000]:
        known |= {record.kimg: record for record in start("broken", stopped_at(stop), kimg=3, **changes)}
    assert without_times(list(known.values())) == without_times(whole)
    assert calls[0] < sum(calls[1:]) <= calls[0] + 2 * len(stops), "a step was done twice"
    ours, theirs = (load_best(tmp_path / name) for name in ("broken", "whole"))
    assert all(torch.equal(ours["ema"][name], theirs["ema"][name]) for name in theirs["ema"])
    seconds = [record.train_seconds for record in known.values()]
    assert seconds == sorted(seconds)


def test_a_finished_trial_yields_its_last_record_only(start: Start) -> None:
    first = list(start(kimg=2))
    assert list(start(kimg=2)) == first[-1:]


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_without_its_newest_checkpoint_a_trial_falls_back_one_tick(
    start: Start, tmp_path: Path, damage: str
) -> None:
    first = list(start(kimg=3))
    newest = max((tmp_path / "0").glob("state-*.pt"))
    if damage == "missing":
        newest.unlink()
    else:
        newest.write_bytes(newest.read_bytes()[:-100])
    second = list(start(kimg=3))
    assert [record.kimg for record in second] == [2, 3]
    assert second[0] == first[1]
    assert without_times(second) == without_times(first[1:])
    assert [record.kimg for record in TrialFolder(tmp_path / "0").records()] == [1, 2, 3]


def test_without_any_checkpoint_a_trial_starts_again(start: Start, tmp_path: Path) -> None:
    first = list(start(kimg=2))
    for path in (tmp_path / "0").glob("state-*.pt"):
        path.unlink()
    assert without_times(list(start(kimg=2))) == without_times(first)
    assert len(TrialFolder(tmp_path / "0").records()) == 2


def test_a_record_that_a_crash_left_unwritten_is_restored(start: Start, tmp_path: Path) -> None:
    """The checkpoint is written first: a crash after it leaves a record missing, or half of one."""
    running = start(kimg=3)
    first = [next(running), next(running)]
    running.close()
    path = tmp_path / "0" / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert next(start(kimg=3)) == first[1]
    assert TrialFolder(tmp_path / "0").records() == first


ADAPTIVE: dict[str, Any] = {
    "controller": "skip", "auc_low": 0.7, "auc_high": 0.7, "augment": "ada", "augment_target": 0.5,
    "augment_kimg": 4.0, "schedule": "cosine", "lr_final": 0.5, "augment_start": 0.2, "kimg": 5,
}  # fmt: skip


def test_records_hold_the_controller_and_the_probability_of_ada(
    dataset: Dataset, evaluator: Evaluator, tiny: Any, tmp_path: Path
) -> None:
    """The reading of a tick sets both for the next one."""
    strange = dataclasses.replace(dataset, held=255 - dataset.held)  # as if D had memorised the training set
    records = list(run_trial(tiny(**ADAPTIVE), strange, evaluator, tmp_path))
    assert (records[0].control, records[0].augment_p) == (0.0, 0.0)
    p = 0.0
    for before, after in itertools.pairwise(records):
        assert after.control == update_controller(before.control, before.auc, 0.7, 0.7)
        p = next_augment_p(p, before.overfit, 0.5, 0.25, 0.8)
        ceiling = 0.8 * cosine_schedule(0.2, 1.0, min(1.0, after.kimg / 5))
        assert after.augment_p == pytest.approx(min(p, ceiling), abs=0.01)  # a batch beyond the kimg
    assert any(record.control for record in records)
    assert any(record.augment_p for record in records)


def test_ada_and_the_controller_resume_to_the_same_records(start: Start) -> None:
    whole = list(start("whole", **ADAPTIVE))
    running = start("broken", **ADAPTIVE)
    first = [next(running) for _ in range(2)]
    running.close()
    second = list(start("broken", **ADAPTIVE))
    assert without_times(first + second[1:]) == without_times(whole)


# ---- Failures


def test_a_diverged_trial_ends_with_that_verdict(start: Start, tmp_path: Path) -> None:
    records = list(start(kimg=6, tick_kimg=2, **WILD))
    assert [record.verdict for record in records] == ["diverged"]
    (record,) = records
    assert record.fid is None
    assert record.best_fid is None
    assert record.objective == PENALTY
    assert all(map(math.isfinite, record.metrics().values()))
    assert not list((tmp_path / "0").glob("best-*"))
    again = list(start(kimg=6, tick_kimg=2, **WILD))
    assert [record.verdict for record in again] == ["diverged"]
    assert again[0].objective == PENALTY


def test_divergence_after_a_good_tick_keeps_the_best(start: Start, tmp_path: Path) -> None:
    """A checkpoint is poisoned between two ticks: the trial ends, its best generator stays."""
    running = start(kimg=5)
    first = next(running)
    running.close()
    files = TrialFolder(tmp_path / "0")
    state = files.restore()
    assert state is not None
    state["trainer"]["G"]["body.0.weight"][:] = math.nan
    files.save(1, {name: state[name] for name in ("trainer", "progress", "record")})
    records = list(start(kimg=5))
    assert [record.verdict for record in records] == [first.verdict, "diverged"]
    assert records[-1].fid is None
    assert (records[-1].objective, records[-1].best_fid, records[-1].best_kimg) == (first.fid, first.fid, 1)
    assert load_best(tmp_path / "0")["kimg"] == 1
    assert list(start(kimg=5))[0].verdict == "diverged"


def test_a_conditional_trial_on_unlabelled_images_is_refused(
    start: Start, dataset: Dataset, evaluator: Evaluator, tiny: Any, tmp_path: Path
) -> None:
    unlabelled = dataclasses.replace(dataset, train_labels=None, held_labels=None, classes=())
    with pytest.raises(ConfigError, match="labelled"):
        next(run_trial(tiny(conditional=True), unlabelled, evaluator, tmp_path / "1"))
    assert next(run_trial(tiny(), unlabelled, evaluator, tmp_path / "2")).kimg == 1


LIMITED = """
import torch
from torch import nn

class D(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(64, 1)

    def forward(self, images):
        if torch.is_grad_enabled() and len(images) > {most}:
            raise torch.OutOfMemoryError("no room for %d images" % len(images))
        return self.out(images.flatten(1)).squeeze(1)

def make(config, shape):
    return nn.Sequential(nn.Linear(config.z_dim, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))), D()
"""


@pytest.fixture
def out_of_memory_above(own_code: Callable[..., Path]) -> Callable[[int], str]:
    """out_of_memory_above(most): networks whose D cannot train on more than `most` images at once."""

    def write(most: int) -> str:
        own_code(LIMITED.format(most=most), "limited")
        return "limited:make"

    return write


def test_batches_are_split_where_memory_is_short(
    start: Start, out_of_memory_above: Callable[[int], str]
) -> None:
    events: list[TrialEvent] = []
    changes = {"architecture": out_of_memory_above(40), "batch_size": 32, "on_event": events.append}
    whole = list(start("0", **changes))  # reals and fakes: 64 at once, 32 in two parts
    (event,) = events
    assert event.kind is EventKind.OUT_OF_MEMORY
    assert event.kind.is_failure
    assert "each batch in 2 parts" in event.text
    assert [record.kimg for record in whole] == [1, 2]
    assert all(record.fid is not None for record in whole)
    running = start("1", **changes)
    next(running)
    running.close()
    resumed = list(start("1", **changes))
    assert without_times(resumed) == without_times(whole)
    assert len(events) == 2  # the checkpoint holds the number of parts


def test_the_error_of_a_trial_too_large_even_for_split_batches_names_what_to_lower(
    start: Start, out_of_memory_above: Callable[[int], str]
) -> None:
    with pytest.raises(
        TrialError, match=r"too small even for batches in 2 parts: batch_size 32.*lower these"
    ):
        list(start(architecture=out_of_memory_above(20), batch_size=32))


# ---- Events


def test_a_trial_without_incidents_has_no_events(start: Start) -> None:
    events: list[TrialEvent] = []
    list(start(on_event=events.append))
    assert events == []


def test_a_damaged_checkpoint_is_an_event(start: Start, tmp_path: Path) -> None:
    list(start(kimg=3))
    newest = max((tmp_path / "0").glob("state-*.pt"))
    newest.write_bytes(b"torn")
    events: list[TrialEvent] = []
    assert [record.kimg for record in start(kimg=3, on_event=events.append)] == [2, 3]
    (event,) = events
    assert event.kind is EventKind.DAMAGED_CHECKPOINT
    assert event.kind.is_failure
    assert newest.name in event.text


def test_a_full_disk_is_a_failure_and_space_on_it_again_is_none(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[TrialEvent] = []
    replace = files.os.replace
    running = start(kimg=4, on_event=events.append)
    records = [next(running)]

    def full(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", full)
    records += [next(running), next(running)]
    assert [event.kind for event in events] == [EventKind.DISK_FULL]
    monkeypatch.setattr(files.os, "replace", replace)
    records += running
    assert [event.kind for event in events] == [EventKind.DISK_FULL, EventKind.DISK_HAS_SPACE]
    assert [event.kind.is_failure for event in events] == [True, False]
    assert [record.kimg for record in records] == [1, 2, 3, 4]
    assert without_times(TrialFolder(tmp_path / "0").records()) == without_times(records)


class _NoCapture:
    """A backend that can warm up but not capture."""

    def warm_up(self, step: Callable[[], None], strict: bool) -> None:
        step()

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("no capture on this device")

    def release(self) -> None: ...


def test_cuda_graphs_that_cannot_be_captured_are_an_event(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = list(start("without"))
    monkeypatch.setattr(trial, "Trainer", functools.partial(Trainer, backend_factory=lambda *_: _NoCapture()))
    events: list[TrialEvent] = []
    records = list(start("with", on_event=events.append))
    (event,) = events
    assert event.kind is EventKind.NO_CUDA_GRAPHS
    assert not event.kind.is_failure
    assert "no capture on this device" in event.text
    assert without_times(records) == without_times(without)
