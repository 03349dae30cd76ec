"""The export of an event log to real MLflow stores: nothing missing, nothing twice, and no caller waits."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import record
from mlflow_server import Server

from pipeline.tracking.event_log import EventLog, read_events
from pipeline.tracking.mlflow_exporter import ExportStatus, MlflowExporter
from pipeline.tracking.tracking_uri import check_server

MakeStore = Callable[[Path], str]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (ExportStatus(0), "up to date"),
        (ExportStatus(3), "3 events behind"),
        (ExportStatus(3, 1, "OSError: away"), "3 events behind, 1 refused (OSError: away)"),
    ],
)
def test_the_status_is_one_line(status: ExportStatus, text: str) -> None:
    assert str(status) == text


def start_export(root: Path, uri: str, log: EventLog) -> MlflowExporter:
    return MlflowExporter(root, log, uri, "gansweep", {"space": "abc"}, {"trials": 2})


def fill(log: EventLog, trials: range, ticks: range) -> None:
    for trial in trials:
        log.start(trial, f"trial-{trial:04d}", {"lr_g": 0.001 * (trial + 1), "loss": "hinge"})
        for kimg in ticks:
            log.record(record(kimg, 100.0 - kimg, trial=trial))


def runs_of(uri: str, log: EventLog) -> dict[str, Any]:
    """The sweep's runs by their trial tag ('none' = the parent); fails if there are two of one trial."""
    from mlflow import MlflowClient

    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("gansweep")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`gansweep.sweep` = '{log.id}'")
    numbers = [run.data.tags["gansweep.trial"] for run in found]
    assert len(numbers) == len(set(numbers))
    return dict(zip(numbers, found, strict=True))


def history(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    rows = MlflowClient(uri, uri).get_metric_history(run.info.run_id, metric)
    return sorted((row.step, row.value) for row in rows)


# One finished sweep in an sqlite store


@dataclasses.dataclass(frozen=True)
class Exported:
    folder: Path
    uri: str
    log: EventLog
    status: ExportStatus
    run_id: str | None
    runs: dict[str, Any]

    def artifacts(self, number: str, folder: str | None = None) -> list[str]:
        from mlflow import MlflowClient

        run_id = self.runs[number].info.run_id
        return [item.path for item in MlflowClient(self.uri, self.uri).list_artifacts(run_id, folder)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, empty_store: MakeStore) -> Exported:
    """A sweep of two trials that has been exported, with a logged file that does not exist."""
    folder = tmp_path_factory.mktemp("exported")
    root, uri = folder / "out" / "sweep", empty_store(folder / "out")
    log = EventLog(root / "spool.jsonl")
    (root / "samples").mkdir()
    (root / "samples" / "grid.png").write_bytes(b"png")
    (root / "report.html").write_text("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exporter = start_export(root, uri, log)
        fill(log, range(2), range(5, 20, 5))
        log.artifact(0, root / "samples", "samples")
        log.artifact(None, root / "report.html")
        log.artifact(None, root / "gone.html")
        log.end(0, "FINISHED")
        log.end(1, "KILLED", "pruned at 15 kimg")
        log.finish("FINISHED", {"best_fid": 85.0}, {"gansweep.state": "finished"})
        assert exporter.close(60)
    return Exported(folder, uri, log, exporter.status, exporter.run_id, runs_of(uri, log))


@pytest.mark.mlflow
def test_the_sweep_has_a_run_with_its_tags_parameters_and_metrics(exported: Exported) -> None:
    assert exported.runs.keys() == {"none", "0", "1"}
    parent = exported.runs["none"]
    assert parent.info.run_id == exported.run_id
    assert (parent.info.run_name, parent.info.status) == ("sweep", "FINISHED")
    assert parent.data.params == {"trials": "2"}
    assert parent.data.metrics == {"best_fid": 85.0}
    assert (parent.data.tags["space"], parent.data.tags["gansweep.state"]) == ("abc", "finished")


@pytest.mark.mlflow
@pytest.mark.parametrize(("number", "status"), [("0", "FINISHED"), ("1", "KILLED")])
def test_each_trial_has_a_run_below_it(exported: Exported, number: str, status: str) -> None:
    run = exported.runs[number]
    assert (run.info.run_name, run.info.status) == (f"trial-000{number}", status)
    assert run.data.tags["mlflow.parentRunId"] == exported.run_id
    assert run.data.params == {"lr_g": str(0.001 * (int(number) + 1)), "loss": "hinge"}
    assert history(exported.uri, run, "fid") == [(5, 95.0), (10, 90.0), (15, 85.0)]
    assert run.data.tags.get("gansweep.cause") == ("pruned at 15 kimg" if status == "KILLED" else None)


@pytest.mark.mlflow
def test_metrics_keep_the_time_of_their_events(exported: Exported) -> None:
    from mlflow import MlflowClient

    run_id = exported.runs["0"].info.run_id
    times = {m.timestamp for m in MlflowClient(exported.uri, exported.uri).get_metric_history(run_id, "fid")}
    assert times <= {event["time_ms"] for _, event in read_events(exported.log.path) if event}


@pytest.mark.mlflow
def test_files_are_uploaded_and_a_missing_one_is_counted_as_refused(exported: Exported) -> None:
    assert exported.artifacts("none") == ["report.html"]
    assert exported.artifacts("0", "samples") == ["samples/grid.png"]
    assert exported.status == ExportStatus(0, refused=1)


@pytest.mark.mlflow
def test_nothing_is_written_beside_the_store(exported: Exported) -> None:
    assert [path.name for path in exported.folder.iterdir()] == ["out"]


# Sweeps that go on


@pytest.mark.mlflow
def test_after_the_loss_of_the_cursor_every_metric_is_still_there_once(
    tmp_path: Path, empty_store: MakeStore
) -> None:
    root, uri = tmp_path / "sweep", empty_store(tmp_path)
    log = EventLog(root / "spool.jsonl")
    exporter = start_export(root, uri, log)
    fill(log, range(2), range(5, 20, 5))
    assert exporter.close(60)
    before = runs_of(uri, log)
    log.close()
    (root / "shipped.json").unlink()
    log = EventLog(root / "spool.jsonl")
    exporter = start_export(root, uri, log)
    fill(log, range(3), range(5, 25, 5))
    assert exporter.close(60)
    after = runs_of(uri, log)
    assert {number: after[number].info.run_id for number in before} == {
        number: run.info.run_id for number, run in before.items()
    }
    for number in range(3):
        assert history(uri, after[str(number)], "fid") == [(5, 95.0), (10, 90.0), (15, 85.0), (20, 80.0)]


@pytest.mark.mlflow
def test_a_resumed_sweep_opens_its_ended_runs_again(tmp_path: Path, empty_store: MakeStore) -> None:
    root, uri = tmp_path / "sweep", empty_store(tmp_path)
    log = EventLog(root / "spool.jsonl")
    exporter = start_export(root, uri, log)
    fill(log, range(2), range(5, 10, 5))
    log.end(0, "KILLED")
    log.end(1, "FINISHED")
    log.finish("KILLED")
    assert exporter.close(60)
    exporter = start_export(root, uri, log)
    fill(log, range(1), range(5, 15, 5))
    assert exporter.close(60)
    status = {number: run.info.status for number, run in runs_of(uri, log).items()}
    assert status == {"none": "RUNNING", "0": "RUNNING", "1": "FINISHED"}


@pytest.mark.mlflow
def test_a_refused_event_is_counted_and_does_not_block_the_others(
    tmp_path: Path, empty_store: MakeStore
) -> None:
    root, uri = tmp_path / "sweep", empty_store(tmp_path)
    log = EventLog(root / "spool.jsonl")
    log.start(7, "trial-0007", {"a bad\nname!": 1})
    log.record(record(5, 50.0, trial=7))
    exporter = start_export(root, uri, log)
    assert exporter.close(60)
    assert exporter.status == ExportStatus(0, refused=1)
    assert history(uri, runs_of(uri, log)["7"], "fid") == [(5, 50.0)]


@pytest.mark.mlflow
def test_another_store_gets_every_event(tmp_path: Path, empty_store: MakeStore) -> None:
    root = tmp_path / "sweep"
    log = EventLog(root / "spool.jsonl")
    fill(log, range(2), range(5, 10, 5))
    for folder in ("one", "other"):
        uri = empty_store(tmp_path / folder)
        assert start_export(root, uri, log).close(60)
        assert runs_of(uri, log).keys() == {"none", "0", "1"}


@pytest.mark.mlflow
def test_events_beyond_the_durable_size_are_held_back(tmp_path: Path, empty_store: MakeStore) -> None:
    root, uri = tmp_path / "sweep", empty_store(tmp_path)
    fill(EventLog(root / "spool.jsonl"), range(1), range(5, 10, 5))
    durable = (root / "spool.jsonl").stat().st_size
    log = EventLog(root / "spool.jsonl", durable_size=lambda: durable)
    fill(log, range(1, 2), range(5, 10, 5))
    exporter = start_export(root, uri, log)
    assert not exporter.close(5)
    assert exporter.status.behind == 2
    assert runs_of(uri, log).keys() == {"none", "0"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.mark.mlflow
@pytest.mark.slow
def test_a_killed_server_delays_events_but_loses_and_repeats_none(tmp_path: Path, server: Server) -> None:
    root = tmp_path / "sweep"
    log = EventLog(root / "spool.jsonl")
    (root / "grid.png").write_bytes(b"png")
    server.start()
    check_server(server.uri)
    exporter = start_export(root, server.uri, log)
    fill(log, range(1), range(5, 15, 5))
    assert exporter.flush(30)

    server.kill()
    begin = time.perf_counter()
    fill(log, range(2), range(5, 105, 5))
    log.artifact(1, root / "grid.png", "samples")
    assert time.perf_counter() - begin < 1.0  # the search does not wait for the server
    assert not exporter.flush(2)
    assert exporter.status.behind == 40  # 38 new records, one start, one file
    assert exporter.status.error

    server.start()
    assert exporter.flush(40)
    log.end(0, "FINISHED")
    log.finish("FINISHED")
    assert exporter.close(20)
    assert exporter.status == ExportStatus(0)
    runs = runs_of(server.uri, log)
    assert runs.keys() == {"none", "0", "1"}
    for number in ("0", "1"):
        assert history(server.uri, runs[number], "fid") == [(k, 100.0 - k) for k in range(5, 105, 5)]
    assert (runs["0"].info.status, runs["1"].info.status) == ("FINISHED", "RUNNING")
    assert len(list((tmp_path / "artifacts").rglob("grid.png"))) == 1
    assert json.loads((root / "shipped.json").read_text())["sweep"] == log.id
