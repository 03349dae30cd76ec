"""A sweep goes on with the study that it began with, and a copy of it with one of its own."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import optuna
import pytest

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import SweepError
from pipeline.search.journal import SweepJournal
from pipeline.search.space.parser import parse_space
from pipeline.storage.summary_file import FidEvaluator
from pipeline.sweep.manifest import DataFacts, Manifest, SweepFacts, manifest_of
from pipeline.sweep.remains import (
    begin_own_history,
    check_stores_remain,
    keep_addresses,
    original_of,
    trials_with_records,
)
from pipeline.sweep.request import Request
from pipeline.tracking.event_log import EventLog, sweep_id

SPACE = parse_space("[search]\nlr_g = { float = [1e-4, 1e-2], log = true }")
FACTS = SweepFacts(
    data=DataFacts(fingerprint="f"), evaluator=FidEvaluator(extractor="pixels", hash="h", samples=9)
)


def make_sweep(out: Path, trials: int, storage: str = "") -> tuple[Request, Manifest]:
    """A sweep whose folder has the records of so many trials, and no study yet."""
    request = Request(SPACE, SweepConfig(name="a"), out, None, storage=storage)
    for number in range(trials):
        folder = request.paths.trial(number)
        folder.mkdir(parents=True)
        (folder / "records.jsonl").write_text("{}\n")
    manifest = manifest_of(request, FACTS, f"sqlite:///{out}/mlflow.db")
    request.paths.root.mkdir(parents=True, exist_ok=True)
    request.paths.config.write_text(manifest.to_toml())
    EventLog(request.paths.event_log).close()
    return request, manifest


def ask(storage: str | Path, trials: int, name: str = "a") -> None:
    """Make a study with an enqueued trial and so many that were begun."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = optuna.storages.JournalStorage(SweepJournal(storage)) if isinstance(storage, Path) else storage
    study = optuna.create_study(study_name=name, storage=made)
    for _ in range(trials):
        study.ask()
    study.enqueue_trial({})


def check(sweep: tuple[Request, Manifest]) -> None:
    check_stores_remain(*sweep, sweep[1].registry.tracking_uri)


@pytest.mark.parametrize("made", ["none", "empty", "of another", "whole"])
@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_study_without_the_trials_of_the_folder_is_refused(tmp_path: Path, kind: str, made: str) -> None:
    storage = f"sqlite:///{tmp_path}/study.db" if kind == "sqlite" else ""
    sweep = make_sweep(tmp_path / "runs", 2, storage)
    place = storage or sweep[0].paths.study
    if made != "none":
        ask(place, 0 if made == "empty" else 2, "b" if made == "of another" else "a")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if made == "whole":
        check(sweep)
    else:
        with pytest.raises(SweepError, match="has no trial of this sweep, whose folder has 2"):
            check(sweep)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_sweep_without_trials_needs_no_study(tmp_path: Path) -> None:
    check(make_sweep(tmp_path, 0))


def test_a_study_that_lacks_the_last_trials_is_gone_on_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A power cut may have taken the last second of a journal."""
    sweep = make_sweep(tmp_path, 3)
    ask(sweep[0].paths.study, 2)
    check(sweep)
    assert "does not know of trials 2" in caplog.text


def test_another_database_than_the_sweeps_is_answered_with_its_own(tmp_path: Path) -> None:
    request, manifest = make_sweep(tmp_path / "runs", 1, f"sqlite:///{tmp_path}/study.db")
    other = Request(SPACE, request.config, request.out, None, storage=f"sqlite:///{tmp_path}/y.db")
    with pytest.raises(SweepError, match=f"give --storage sqlite:///{tmp_path}/study.db"):
        check((other, manifest))


def test_a_copy_knows_its_original_while_that_is_there(tmp_path: Path) -> None:
    request, _ = make_sweep(tmp_path / "runs", 1)
    copy = SweepPaths(tmp_path / "runs" / "b")
    shutil.copytree(request.paths.root, copy.root)
    assert original_of(copy) == request.paths.root
    assert original_of(request.paths) is None
    event_log = EventLog(copy.event_log)
    begin_own_history(copy, event_log, f"sqlite:///{tmp_path}/mlflow.db")  # the store was copied too
    assert original_of(copy) == request.paths.root
    begin_own_history(copy, event_log, f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert original_of(copy) is None


def test_a_copy_on_a_server_by_another_name_gets_runs_of_its_own(tmp_path: Path) -> None:
    request, manifest = make_sweep(tmp_path / "runs", 1)
    request.paths.config.write_text(
        manifest.to_toml().replace('"sqlite:///../mlflow.db"', '"http://localhost:5000"')
    )
    copy = SweepPaths(tmp_path / "runs" / "b")
    shutil.copytree(request.paths.root, copy.root)
    begin_own_history(copy, EventLog(copy.event_log), "http://127.0.0.1:5000")
    assert original_of(copy) is None


def test_a_finished_copy_whose_images_moved_stays_out_of_its_original(tmp_path: Path) -> None:
    request, manifest = make_sweep(tmp_path / "runs", 1)
    uri = manifest.registry.tracking_uri
    shutil.copytree(request.paths.root, tmp_path / "runs" / "b")
    config = dataclasses.replace(request.config, data=f"folder:{tmp_path}/photos")
    copy = dataclasses.replace(request, config=config, folder="b")
    keep_addresses(copy, manifest, FACTS, uri)
    assert f'data = "folder:{tmp_path}/photos"' in copy.paths.config.read_text()
    assert sweep_id(copy.paths.event_log) != sweep_id(request.paths.event_log)


def test_a_copy_does_not_go_on_with_the_study_of_its_original(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    request, manifest = make_sweep(tmp_path / "runs", 1, storage)
    ask(storage, 1)
    shutil.copytree(request.paths.root, tmp_path / "runs" / "b")
    copy = Request(SPACE, request.config, request.out, None, storage=storage, folder="b")
    with pytest.raises(SweepError, match="two sweeps cannot go on with one study"):
        check((copy, manifest))


def test_only_trials_that_have_reported_count(tmp_path: Path) -> None:
    request, _ = make_sweep(tmp_path, 1)
    request.paths.trial(1).mkdir()
    assert trials_with_records(request.paths) == {0}
