"""`rm` deletes exactly a sweep's files; `sync` sends MLflow what it has not got yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import factories
import pytest

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import RegistryError, SweepError
from pipeline.search.space.parser import parse_space
from pipeline.search.space.toml import dump_toml
from pipeline.storage.files import size_of
from pipeline.storage.lock import sweep_lock
from pipeline.sweep import cleanup
from pipeline.tracking.event_log import EventLog
from pipeline.tracking.tracking_uri import default_uri
from pipeline.training.checkpoint import read_records

SPACE = parse_space("[search]\nlr_g = { float = [1e-5, 1e-2], log = true }\n")


@pytest.fixture
def sweep(tmp_path: Path) -> SweepPaths:
    """The folder of a sweep of two trials, as `run` leaves it where MLflow never answered."""
    paths = SweepPaths(tmp_path / "runs" / "s")
    paths.root.mkdir(parents=True)
    tables = {
        "sweep": SweepConfig(name="s").to_dict(),
        "data": {"fingerprint": "f"},
        "evaluator": {"hash": "h"},
        "registry": {"name": "s", "tracking_uri": default_uri(tmp_path / "runs")},
    }
    head = "# Written by gansweep: one resolved sweep.\n\n"
    paths.config.write_text(head + dump_toml({**tables, "space": SPACE.tables()}))
    paths.summary.write_text(json.dumps({"trials": {"complete": 1, "pruned": 0, "failed": 0, "running": 1}}))
    event_log = EventLog(paths.event_log)
    for number in range(2):
        folder = paths.trial(number)
        (folder / "samples").mkdir(parents=True)
        (folder / "samples" / "000001.png").write_bytes(b"p" * 500)
        (folder / "best-000000001-0123456789abcdef.pt").write_bytes(b"b" * 1000)
        (folder / "state-000000001-0123456789abcdef.pt").write_bytes(b"s" * 4000)
        event_log.start(number, f"trial-{number:04d}", {"lr_g": 1e-3})
        rows = [factories.record(kimg, trial=number) for kimg in (1, 2, 3)]
        (folder / "records.jsonl").write_text("".join(row.to_json() + "\n" for row in rows))
        for row in rows:
            event_log.record(row)
    event_log.close()
    (paths.root / ".12-0123abcd-summary.json").write_text("left by a kill")
    return paths


def test_a_sweep_is_deleted_and_nothing_beside_it(sweep: SweepPaths) -> None:
    (sweep.root.parent / "other").mkdir()
    size = size_of(sweep.root)
    plan = cleanup.plan_removal(sweep.root, keep_best=False)
    assert plan.bytes == size
    assert plan.paths[-1] == sweep.config  # an interrupted removal can be repeated
    done = cleanup.remove_sweep(sweep.root, keep_best=False)
    assert done.trials == 2
    assert not sweep.root.exists()
    assert (sweep.root.parent / "other").is_dir()


def test_files_that_no_sweep_wrote_stay(sweep: SweepPaths) -> None:
    (sweep.root / "notes.txt").write_text("mine")
    assert cleanup.remove_sweep(sweep.root, keep_best=False).other_files == ("notes.txt",)
    assert [path.name for path in sweep.root.iterdir()] == ["notes.txt"]


def test_keep_best_keeps_records_and_generators(sweep: SweepPaths) -> None:
    kept = {sweep.summary, sweep.config, sweep.event_log}
    plan = cleanup.plan_removal(sweep.root, keep_best=True)
    assert (plan.unfinished, plan.bytes) == (1, 2 * 4500 + len("left by a kill"))
    cleanup.remove_sweep(sweep.root, keep_best=True)
    assert all(path.exists() for path in kept)
    for number in range(2):
        assert sorted(path.name.split("-")[0] for path in sweep.trial(number).iterdir()) == [
            "best",
            "records.jsonl",
        ]
        assert len(read_records(sweep.trial(number))) == 3
    assert cleanup.plan_removal(sweep.root, keep_best=True).paths == ()


@pytest.mark.parametrize("what", ["nothing", "an empty folder", "another program's sweep.toml"])
def test_a_folder_without_a_sweep_is_refused(what: str, tmp_path: Path) -> None:
    root = tmp_path / "x"
    if what != "nothing":
        root.mkdir()
    if what.endswith("toml"):
        (root / "sweep.toml").write_text("[search]\n")
    for act in (lambda: cleanup.remove_sweep(root, keep_best=False), lambda: cleanup.sync_mlflow(root)):
        with pytest.raises(SweepError, match="no sweep in .*holds a sweep.toml"):
            act()
    assert root.exists() == (what != "nothing")


def test_a_running_sweep_is_not_touched(sweep: SweepPaths) -> None:
    before = size_of(sweep.root)
    acts: list[Callable[[], object]] = [
        lambda: cleanup.remove_sweep(sweep.root, keep_best=False),
        lambda: cleanup.sync_mlflow(sweep.root),
    ]
    with sweep_lock(sweep):
        for act in acts:
            with pytest.raises(SweepError, match="held by process"):
                act()
    assert size_of(sweep.root) == before + sweep.lock.stat().st_size


@pytest.mark.mlflow
def test_sync_sends_each_record_once_and_in_order(
    sweep: SweepPaths, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    uri = default_uri(sweep.root.parent)
    assert cleanup.sync_mlflow(sweep.root) == {"open": 1, "start": 2, "record": 6}
    assert not cleanup.sync_mlflow(sweep.root)
    assert f"the sweep has not finished: gansweep resume {sweep.root} goes on with it" in caplog.messages
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("gansweep/s")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(children) == 2
    for run in children:
        rows = client.get_metric_history(run.info.run_id, "fid")
        assert [row.step for row in sorted(rows, key=lambda row: row.timestamp)] == [1, 2, 3]


def test_sync_without_a_usable_server_is_one_line(sweep: SweepPaths) -> None:
    with pytest.raises(RegistryError, match="127.0.0.1:9") as caught:
        cleanup.sync_mlflow(sweep.root, "http://127.0.0.1:9")
    assert "\n" not in str(caught.value)
    text = sweep.config.read_text().replace(default_uri(sweep.root.parent), "postgresql://***@host/db")
    sweep.config.write_text(text)
    with pytest.raises(RegistryError, match="--tracking-uri"):
        cleanup.sync_mlflow(sweep.root)
