"""A rerun of a trial repeats the stored records, and names the fields that differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import SweepConfig, SweepPaths, TrialConfig
from pipeline.data.dataset import load_dataset
from pipeline.errors import SweepError
from pipeline.metrics import extractors, frechet
from pipeline.search.space.parser import parse_space
from pipeline.sweep import rerun
from pipeline.sweep.inputs import SweepInputs
from pipeline.sweep.manifest import Manifest, RegistryFacts
from pipeline.tracking.event_log import EventLog
from pipeline.training import trial
from pipeline.training.checkpoint import read_records
from pipeline.training.seeds import trial_seed
from pipeline.user_code import UserCode

SPACE = parse_space(
    """
    [fixed]
    architecture = "mlp"
    width_g = 8
    width_d = 8
    kimg = 4
    tick_kimg = 1
    [search]
    lr_g = { float = [1e-4, 1e-2], log = true }
    """
)
PARAMS = {"lr_g": 0.00123}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SweepPaths]:
    """A sweep's folder with one trial that was stopped after three of its four kimg."""
    paths = SweepPaths(tmp_path_factory.mktemp("runs") / "s")
    paths.root.mkdir()
    config = SweepConfig(name="s", data="digits", extractor="pixels", fid_samples=100, seed=3)
    dataset = load_dataset("digits")
    evaluator = frechet.build_evaluator(dataset, extractors.build_extractor("pixels", dataset), 100)
    facts = SweepInputs(dataset, evaluator, UserCode()).facts
    manifest = Manifest(config=config, space=SPACE, facts=facts, registry=RegistryFacts(name="s"))
    paths.config.write_text(manifest.to_toml())
    event_log = EventLog(paths.event_log)
    event_log.start(5, "trial-0005", PARAMS)
    event_log.close()
    trained = SPACE.config(PARAMS, seed=trial_seed(3, 5))
    running = trial.run_trial(trained, dataset, evaluator, paths.trial(5), trial.TrialSettings(number=5))
    for _ in range(3):
        next(running)
    running.close()
    return paths


def again(sweep: SweepPaths, **options: Any) -> list[rerun.RerunResult]:
    return rerun.rerun_trial(sweep.root, 5, **options)


def test_a_trial_repeats_its_records(sweep: SweepPaths) -> None:
    before = read_records(sweep.trial(5))
    (run,) = again(sweep)
    assert [row.record.kimg for row in run.rows] == [1, 2, 3]
    assert (run.compared, run.agreed) == (3, 3)
    assert read_records(sweep.trial(5)) == before
    (run,) = again(sweep)  # once more, from the start
    assert run.agreed == 3


def test_a_trial_repeats_its_records_where_the_sweep_had_raised_its_ticks(
    sweep: SweepPaths, tmp_path: Path
) -> None:
    """Random generators are reseeded at each tick, so its length matters."""
    sweep = SweepPaths(Path(shutil.copytree(sweep.root, tmp_path / "s")))
    shutil.rmtree(sweep.trial(5))
    shutil.rmtree(sweep.root / "reruns", ignore_errors=True)
    dataset = load_dataset("digits")
    evaluator = frechet.build_evaluator(dataset, extractors.build_extractor("pixels", dataset), 100)
    raised = TrialConfig.from_dict({**SPACE.fixed, **PARAMS, "tick_kimg": 2, "seed": trial_seed(3, 5)})
    running = trial.run_trial(raised, dataset, evaluator, sweep.trial(5), trial.TrialSettings(number=5))
    assert [next(running).kimg for _ in range(2)] == [2, min(4, raised.kimg)]
    running.close()
    (run,) = again(sweep)
    assert (run.compared, run.agreed) == (2, 2)


def test_a_trial_is_extended_and_trained_with_other_seeds(sweep: SweepPaths) -> None:
    first, other = again(sweep, kimg=6, seeds=1)
    assert [row.record.kimg for row in first.rows] == [1, 2, 3, 4, 5, 6]
    assert (first.compared, first.agreed) == (3, 3)
    assert other.seed != first.seed
    assert other.compared == 0
    assert len(other.rows) == 6


def test_an_interrupted_rerun_goes_on(sweep: SweepPaths) -> None:
    def leave(index: int, row: rerun.RerunRow) -> None:
        if row.record.kimg == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(sweep, on_row=leave)
    states = {path.name for path in (sweep.root / "reruns" / "5").glob("state-000000002-*")}
    (run,) = again(sweep)
    assert states
    assert (run.compared, run.agreed, len(run.rows)) == (3, 3, 3)


def test_a_record_that_differs_is_named(sweep: SweepPaths) -> None:
    path = sweep.trial(5) / "records.jsonl"
    text = path.read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    rows[0]["fid"] *= 1 + 1e-9  # another number of cores
    rows[1]["fid"] *= 1 + 1e-5
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        (run,) = again(sweep)
    finally:
        path.write_text(text)
    assert (run.compared, run.agreed) == (3, 2)
    assert [set(row.differs) for row in run.rows] == [set(), {"fid"}, set()]


def test_a_rerun_that_cannot_agree_is_refused(sweep: SweepPaths, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="this sweep has 5"):
        rerun.rerun_trial(sweep.root, 4)
    with pytest.raises(SweepError, match=r"holds a sweep\.toml"):
        rerun.rerun_trial(tmp_path, 0)
    text = sweep.config.read_text()
    fingerprint = next(line for line in text.splitlines() if line.startswith("fingerprint"))
    sweep.config.write_text(text.replace(fingerprint, 'fingerprint = "0123456789abcdef"'))
    try:
        with pytest.raises(SweepError, match=r"another data\.fingerprint"):
            again(sweep)
    finally:
        sweep.config.write_text(text)


def test_a_longer_trial_keeps_the_length_of_its_cosine() -> None:
    short = TrialConfig(kimg=10, schedule="cosine")
    assert rerun.extend_to(short, 5) == short
    long = rerun.extend_to(short, 30)
    assert (long.kimg, long.burn_in_kimg) == (30, 10)
    assert rerun.extend_to(TrialConfig(kimg=10), 30).burn_in_kimg == 0
