"""Finalists: measured with fresh latents, trained with other seeds, ranked by the mean over the seeds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import factories
import numpy as np
import pytest

from pipeline.data.dataset import Dataset
from pipeline.metrics.frechet import Evaluator
from pipeline.metrics.measurement import Measurement
from pipeline.storage.typed_json import to_json
from pipeline.training import finalists
from pipeline.training.checkpoint import load_best, read_records
from pipeline.training.finalists import Finalist, FinalistRun
from pipeline.training.trial import TrialSettings, run_trial


def measurement(fid: float, verdict: str = "ok", n: int = 100) -> Measurement:
    numbers: dict[str, Any] = {
        field.name: {"str": "ok", "int": n}.get(str(field.type), 0.0)
        for field in dataclasses.fields(Measurement)
    }
    empty = {"fid_by_class": {}, "class_counts": {}, "notes": (), "label_accuracy": None}
    return Measurement(
        **{**numbers, **empty, "fid": fid, "fid_low": fid, "fid_high": fid, "collapse": verdict}
    )


def run(trial: int, index: int, fid: float | None, verdict: str = "ok") -> FinalistRun:
    found = None if fid is None else measurement(fid, verdict)
    return FinalistRun(trial, index, Path("none"), measurement=found, record=factories.record(3, 1.0))


def test_the_mean_over_the_seeds_decides() -> None:
    lucky, steady = (10.0, 50.0, 60.0), (20.0, 21.0, 22.0)
    runs = [run(t, i, fid) for t, fids in enumerate((lucky, steady)) for i, fid in enumerate(fids)]
    found = finalists.choose_winner(runs[::-1])
    assert [finalist.trial for finalist in found] == [1, 0]
    best = found[0].row({}).best
    assert (best.fid_mean, best.fid_std) == (21.0, 1.0)
    assert found[1].chosen.index == 0


def test_finalists_with_verdicts_or_failed_runs_come_last() -> None:
    collapsed = [run(0, 0, 1.0, "collapsed"), run(0, 1, 1.0, "collapsed")]
    failing = [run(1, 0, 2.0), run(1, 1, None)]
    plain, nothing = [run(2, 0, 30.0), run(2, 1, 31.0)], [run(3, 0, None)]
    found = finalists.choose_winner([*collapsed, *failing, *plain, *nothing])
    assert [finalist.trial for finalist in found] == [2, 1, 0]


def test_a_run_without_verdicts_is_chosen() -> None:
    finalist = Finalist(0, (run(0, 0, 5.0, "collapsed"), run(0, 1, 9.0), run(0, 2, 8.0)))
    assert finalist.chosen.index == 2
    assert json.dumps(to_json(finalist.row({})), allow_nan=False)


@pytest.mark.parametrize(
    ("requested", "budget", "spent", "seeds"),
    [(-1, 0, 30, 0), (-1, 600, 605, 0), (-1, 601, 30, 2), (-1, 0, 5000, 2), (0, 9999, 9999, 0), (5, 0, 0, 5)],
)
def test_extra_seeds_after_a_long_search(requested: int, budget: float, spent: float, seeds: int) -> None:
    assert finalists.extra_seed_count(requested, budget, spent) == seeds


def test_final_samples(evaluator: Evaluator) -> None:
    assert finalists.final_samples(evaluator) == 250
    assert finalists.final_samples(evaluator, 400) == 400
    assert finalists.final_samples(evaluator, 3) == 16


@pytest.fixture(scope="module")
def trained(
    dataset: Dataset, evaluator: Evaluator, tiny: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder: Path = tmp_path_factory.mktemp("trial")
    list(run_trial(tiny(seed=5), dataset, evaluator, folder, TrialSettings(number=3)))
    return folder


def test_a_finalist_is_measured_with_fresh_latents(
    trained: Path, dataset: Dataset, evaluator: Evaluator
) -> None:
    requested = FinalistRun(3, 0, trained)
    found = finalists.measure_finalist(requested, dataset, evaluator, n=200, seed=1, device="cpu")
    best = min(record.fid for record in read_records(trained) if record.fid is not None)
    assert found.measurement is not None
    assert found.measurement.n == 200
    assert found.measurement.evaluator == dataclasses.replace(evaluator, samples=200).hash
    assert found.search_fid == best
    assert found.fresh_fid is not None
    assert found.fresh_fid != best
    assert found.fresh_fid == pytest.approx(best, rel=0.3)
    assert found.seed == 5
    final = Finalist(3, (found,)).row({})
    assert final.best.gap == pytest.approx(found.fresh_fid - best)
    assert final.measurement.fid == found.measurement.fid
    again = finalists.measure_finalist(requested, dataset, evaluator, n=200, seed=1, device="cpu")
    assert again == found


def test_a_finalist_without_a_checkpoint_gets_a_problem(
    tmp_path: Path, dataset: Dataset, evaluator: Evaluator
) -> None:
    found = finalists.measure_finalist(
        FinalistRun(0, 0, tmp_path), dataset, evaluator, n=50, seed=0, device="cpu"
    )
    assert "no best generator" in found.problem
    assert finalists.choose_winner([found]) == []


def test_retraining_changes_only_the_seed(
    trained: Path, tmp_path: Path, dataset: Dataset, evaluator: Evaluator
) -> None:
    for index in (1, 2):
        requested = FinalistRun(3, index, tmp_path / str(index))
        for _ in range(2):  # the second call has nothing left to do
            finalists.retrain(trained, requested, 1, dataset, evaluator, TrialSettings())
        assert [record.kimg for record in read_records(requested.folder)] == [1]
    configs = [load_best(folder)["config"] for folder in (trained, tmp_path / "1", tmp_path / "2")]
    assert len({config.pop("seed") for config in configs}) == 3
    assert configs[0] == configs[1] == configs[2]
    states = [load_best(tmp_path / i)["ema"] for i in "12"]
    name = next(iter(states[0]))
    assert not np.array_equal(states[0][name], states[1][name])
