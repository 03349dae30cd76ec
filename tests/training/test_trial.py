"""A trial from its first tick to its last: what it yields, what it leaves, how it goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import ConfigError, TrialError
from pipeline.metrics.frechet import Evaluator
from pipeline.records import METRICS, PENALTY, VERDICTS, TrialRecord
from pipeline.training import sampling, trial
from pipeline.training.augmentation import next_augment_p
from pipeline.training.balance import update_controller
from pipeline.training.checkpoint import TrialFolder, best_generator, load_best
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.build import build_networks
from pipeline.training.networks.custom import use_code
from pipeline.training.schedules import scheduled

Start = Callable[..., Iterator[TrialRecord]]

WILD: dict[str, Any] = {
    "architecture": "mlp", "depth_d": 8, "depth_g": 8, "width_d": 64,
    "loss": "lsgan", "lr_g": 1.0, "lr_d": 1.0,
}  # fmt: skip
"""Explodes within 2 kimg."""


@pytest.fixture
def start(dataset: Dataset, evaluator: Evaluator, tiny: Callable[..., TrialConfig], tmp_path: Path) -> Start:
    """start(folder, **changes): `trial.run` of a tiny trial below tmp_path."""

    def run(folder: str = "0", should_stop: Callable[[], bool] = bool, **changes: Any) -> Any:
        config, place = tiny(**changes), tmp_path / folder
        return trial.run_trial(config, dataset, evaluator, place, number=7, should_stop=should_stop)

    return run


def timeless(records: list[TrialRecord]) -> list[TrialRecord]:
    still = {"images_per_sec": 0.0, "train_seconds": 0.0, "eval_seconds": 0.0}
    return [dataclasses.replace(record, **still) for record in records]


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


def test_records_on_disk_are_those_that_were_yielded(start: Start, tmp_path: Path) -> None:
    records = []
    for record in start(kimg=3, penalty="r1"):
        records.append(record)
        assert TrialFolder(tmp_path / "0").records() == records  # on disk before anybody hears of it
    lines = (tmp_path / "0" / "records.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [record.to_dict() for record in records]


def test_what_a_record_says(start: Start) -> None:
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
    """Not only does it run: ten kimg bring the distance to the blobs down to a half."""
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
    """And it draws again, from its file, to the very same fid. A high rate makes fid go up and down."""
    records = list(start(kimg=6, lr_g=0.02, lr_d=0.02, conditional=True, ema_halflife_kimg=0.0))
    fids = [record.fid for record in records]
    best = min(records, key=lambda record: record.fid)
    assert fids != sorted(fids, reverse=True), "the last tick is always the best: this tests nothing"
    generator, stored = best_generator(tmp_path / "0")
    assert stored["kimg"] == best.kimg == records[-1].best_kimg
    assert TrialRecord.from_dict(stored["record"]) == best
    assert evaluator.score(sampling.sampler(generator, dataset)) == best.fid
    assert TrialConfig.from_dict(stored["config"]).lr_g == 0.02
    assert ImageShape(**stored["shape"]) == ImageShape(8, 1, 3)


# ---- Interruptions


@pytest.mark.parametrize("ticks", [1, 2])
@pytest.mark.parametrize(
    "game", [{"conditional": True, "norm_d": "batch"}, {"norm_d": "spectral", "n_critic": 2}]
)
def test_an_interrupted_trial_goes_on_as_if_it_had_not_been(
    start: Start, tmp_path: Path, game: dict[str, Any], ticks: int
) -> None:
    whole = list(start("whole", kimg=3, **game))
    running = start("broken", kimg=3, **game)
    first = [next(running) for _ in range(ticks)]
    running.close()
    second = list(start("broken", kimg=3, **game))
    assert second[0] == first[-1]
    assert timeless(first + second[1:]) == timeless(whole)
    assert TrialFolder(tmp_path / "broken").records() == first + second[1:]
    assert second[-1].train_seconds > first[-1].train_seconds
    ours, theirs = (load_best(tmp_path / name) for name in ("broken", "whole"))
    assert ours["kimg"] == theirs["kimg"]
    assert all(torch.equal(ours["ema"][name], theirs["ema"][name]) for name in theirs["ema"])


@pytest.mark.parametrize(
    "game", [{"norm_d": "batch", "conditional": True}, {"penalty": "r1", "n_critic": 2, "augment_p": 0.5}]
)
@pytest.mark.parametrize("stops", [[5], [50], [33, 33], [7, 3, 40]])
def test_stopped_within_a_tick(start: Start, tmp_path: Path, stops: list[int], game: dict[str, Any]) -> None:
    """What the tick under way had done is kept: no step is taken twice, and all goes on bit for bit.

    A tick of 32 steps asks 33 times: before its first record, at a step, when all is trained and nothing is
    measured yet, and again within the very same tick.
    """
    asked: list[int] = []

    def stopped_at(stop: int) -> Callable[[], bool]:
        asked.append(0)

        def should_stop() -> bool:
            asked[-1] += 1
            return asked[-1] >= stop

        return should_stop

    whole = list(start("whole", stopped_at(1000), kimg=3, **game))
    told: dict[int, TrialRecord] = {}
    for stop in [*stops, 1000]:
        told |= {record.kimg: record for record in start("broken", stopped_at(stop), kimg=3, **game)}
    assert timeless(list(told.values())) == timeless(whole)
    assert asked[0] < sum(asked[1:]) <= asked[0] + 2 * len(stops), "a step was taken again"
    ours, theirs = (load_best(tmp_path / name) for name in ("broken", "whole"))
    assert all(torch.equal(ours["ema"][name], theirs["ema"][name]) for name in theirs["ema"])
    seconds = [record.train_seconds for record in told.values()]
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
    assert timeless(second) == timeless(first[1:])
    assert [record.kimg for record in TrialFolder(tmp_path / "0").records()] == [1, 2, 3]


def test_without_any_checkpoint_a_trial_begins_anew(start: Start, tmp_path: Path) -> None:
    first = list(start(kimg=2))
    for path in (tmp_path / "0").glob("state-*.pt"):
        path.unlink()
    assert timeless(list(start(kimg=2))) == timeless(first)
    assert len(TrialFolder(tmp_path / "0").records()) == 2


def test_a_record_that_was_not_written_before_a_crash_is_put_back(start: Start, tmp_path: Path) -> None:
    """The checkpoint comes first: a crash between the two leaves a record missing, or half of one."""
    running = start(kimg=3)
    first = [next(running), next(running)]
    running.close()
    path = tmp_path / "0" / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert next(start(kimg=3)) == first[1]
    assert TrialFolder(tmp_path / "0").records() == first


ANSWERING: dict[str, Any] = {
    "controller": "skip", "auc_low": 0.7, "auc_high": 0.7, "augment": "ada", "augment_target": 0.5,
    "augment_kimg": 4.0, "schedule": "cosine", "lr_final": 0.5, "augment_start": 0.2, "kimg": 5,
}  # fmt: skip


def test_every_action_of_the_controller_and_of_ada_is_recorded(
    dataset: Dataset, evaluator: Evaluator, tiny: Any, tmp_path: Path
) -> None:
    """The reading of a tick sets what the next one is played with, by the laws of their rooms."""
    strange = dataclasses.replace(dataset, held=255 - dataset.held)  # as if D knew the training set by heart
    records = list(trial.run_trial(tiny(**ANSWERING), strange, evaluator, tmp_path))
    assert (records[0].control, records[0].augment_p) == (0.0, 0.0)
    p = 0.0
    for before, after in itertools.pairwise(records):
        assert after.control == update_controller(before.control, before.auc, 0.7, 0.7)
        p = next_augment_p(p, before.overfit, 0.5, 0.25, 0.8)
        ceiling = 0.8 * scheduled(0.2, 1.0, min(1.0, after.kimg / 5))
        assert after.augment_p == pytest.approx(min(p, ceiling), abs=0.01)  # a batch beyond the kimg
    assert any(record.control for record in records)
    assert any(record.augment_p for record in records)


def test_what_answers_goes_on_after_an_interruption(start: Start) -> None:
    whole = list(start("whole", **ANSWERING))
    running = start("broken", **ANSWERING)
    first = [next(running) for _ in range(2)]
    running.close()
    second = list(start("broken", **ANSWERING))
    assert timeless(first + second[1:]) == timeless(whole)


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


def test_what_does_not_fit_is_refused_before_anything_is_trained(
    start: Start, dataset: Dataset, evaluator: Evaluator, tiny: Any, tmp_path: Path
) -> None:
    unlabelled = dataclasses.replace(dataset, train_labels=None, held_labels=None, classes=())
    with pytest.raises(ConfigError, match="labelled"):
        next(trial.run_trial(tiny(conditional=True), unlabelled, evaluator, tmp_path / "1"))
    assert next(trial.run_trial(tiny(), unlabelled, evaluator, tmp_path / "2")).kimg == 1


# ---- Drawing


def test_samples_are_a_stream_that_follows_its_seed(dataset: Dataset, tiny: Any) -> None:
    torch.manual_seed(0)
    generator = build_networks(tiny(), ImageShape(8, 1))[0].eval()
    a, b = (sampling.sampler(generator, dataset) for _ in range(2))
    c = sampling.sampler(generator, dataset, 1)
    first = a(300)  # more than a chunk
    assert first.shape == (300, 8, 8, 1)
    assert first.dtype == torch.uint8
    assert torch.equal(first, b(300))
    assert not torch.equal(first, c(300))
    assert not torch.equal(first, a(300))


def test_draw_gives_labels_as_frequent_as_in_the_data(dataset: Dataset, tiny: Any) -> None:
    generator = build_networks(tiny(conditional=True), ImageShape(8, 1, 3))[0].eval()
    data_labels = torch.tensor([0, 2, 2, 2])
    rng = torch.Generator().manual_seed(0)
    images, labels = sampling.draw(generator, 2000, rng, data_labels)
    assert len(images) == 2000
    assert labels is not None
    assert np.allclose(np.bincount(labels.numpy(), minlength=3) / 2000, [0.25, 0, 0.75], atol=0.03)
    unconditional = build_networks(tiny(), ImageShape(8, 1))[0].eval()
    assert sampling.draw(unconditional, 2, rng, data_labels)[1] is None


HUNGRY = """
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
def hungry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], str]]:
    """hungry(most): networks whose D cannot learn from more than `most` images at once."""

    def write(most: int) -> str:
        (tmp_path / "hungry.py").write_text(HUNGRY.format(most=most))
        use_code(tmp_path)
        return "hungry:make"

    yield write
    use_code(None)


def test_batches_go_through_in_parts_where_memory_is_short(
    start: Start,
    dataset: Dataset,
    evaluator: Evaluator,
    tiny: Any,
    tmp_path: Path,
    hungry: Callable[[int], str],
) -> None:
    said: list[str] = []
    config = tiny(architecture=hungry(40), batch_size=32)  # reals and fakes: 64 at once, 32 in two parts
    whole = list(trial.run_trial(config, dataset, evaluator, tmp_path / "0", say=said.append))
    assert said == ["trial 0: out of memory; from its last tick on, each batch in 2 parts"]
    assert [record.kimg for record in whole] == [1, 2]
    assert all(record.fid is not None for record in whole)
    half = trial.run_trial(config, dataset, evaluator, tmp_path / "1", say=said.append)
    next(half)
    half.close()
    resumed = list(trial.run_trial(config, dataset, evaluator, tmp_path / "1", say=said.append))
    assert timeless(resumed) == timeless(whole)
    assert len(said) == 2  # its checkpoint remembers


def test_a_trial_that_does_not_fit_in_parts_says_what_to_lower(
    start: Start, hungry: Callable[[int], str]
) -> None:
    with pytest.raises(TrialError, match=r"2 parts of a batch do; got batch_size 32.*lower these"):
        list(start(architecture=hungry(20), batch_size=32))
