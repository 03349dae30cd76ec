"""The spool on disk and its way into real MLflow stores: nothing missing, nothing twice, nobody waits."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_server import Server, free_port

from pipeline.errors import RegistryError, redact
from pipeline.records import TrialRecord
from pipeline.tracking.event_log import EventLog, read_events
from pipeline.tracking.mlflow_exporter import ExportStatus, MlflowExporter
from pipeline.tracking.provenance import provenance
from pipeline.tracking.tracking_uri import check_server, default_artifacts, default_uri

BLANK: dict[str, Any] = {field.name: 0.5 for field in dataclasses.fields(TrialRecord)}


def record(trial: int, kimg: int, fid: float = 50.0) -> TrialRecord:
    return TrialRecord(
        **{**BLANK, "trial": trial, "kimg": kimg, "verdict": "healthy", "fid": fid, "best_kimg": kimg}
    )


def lines(spool: EventLog) -> list[dict[str, Any]]:
    return [event for _, event in read_events(spool.path) if event is not None]


# The spool


def test_spool_holds_every_event_once_even_when_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    for _ in range(2):
        spool = EventLog(path)
        spool.start(0, "trial-0000", {"lr_g": 1e-3})
        spool.record(record(0, 5))
        spool.record(record(0, 10))
        spool.record(record(0, 10))
        spool.end(0, "FINISHED")
        spool.close()
    assert [event["event"] for event in lines(spool)] == ["open", "start", "record", "record", "end"]
    assert [e["record"]["kimg"] for e in lines(spool) if e["event"] == "record"] == [5, 10]
    assert spool.count == 5


def test_spool_says_whether_it_wrote(tmp_path: Path) -> None:
    spool = EventLog(tmp_path / "spool.jsonl")
    assert [spool.record(record(3, 5)), spool.record(record(3, 5)), spool.record(record(4, 5))] == [
        True,
        False,
        True,
    ]
    assert [spool.end(3, "KILLED"), spool.end(3, "KILLED"), spool.end(3, "FINISHED")] == [True, False, True]


@pytest.mark.parametrize("tail", [b'{"event": "rec', b'{"event": "record", "trial": 9}', b"\x00\x00"])
def test_a_torn_last_line_is_cut_off_and_reported_again(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "spool.jsonl"
    first = EventLog(path)
    first.record(record(0, 5))
    first.close()
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    again = EventLog(path)
    assert path.read_bytes() == whole
    assert again.id == first.id
    assert again.count == 2
    assert again.record(record(0, 10))


def test_an_unreadable_line_in_the_middle_is_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    EventLog(path).close()
    with open(path, "ab") as file:
        file.write(b"\xff\xfe garbage\n[1, 2]\n")
    spool = EventLog(path)
    spool.record(record(0, 5))
    assert [event["event"] for event in lines(spool)] == ["open", "record"]
    assert spool.count == 4


@pytest.mark.parametrize(
    "line",
    [
        b'{"event": "end", "trial": 0}',
        b'{"event": "record", "trial": 0}',
        b'{"event": "record", "trial": 0, "record": [1]}',
        b'{"event": "start", "trial": "0", "params": {}}',
        b'{"event": "failure", "trial": 0, "text": "x"}',
        b'{"event": ["open"]}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_event_is_stepped_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "spool.jsonl"
    EventLog(path).close()
    with open(path, "ab") as file:
        file.write(line + b"\n")
    spool = EventLog(path)
    assert [event["event"] for event in lines(spool)] == ["open"]
    assert spool.count == 2


def test_a_killed_writer_leaves_a_spool_that_goes_on(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal; from pathlib import Path; from pipeline.tracking import Spool\n"
        "spool = Spool(Path(sys.argv[1]))\n"
        "for trial in range(100): spool.start(trial, 'x', {})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "spool.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[2], timeout=60)
    assert done.returncode == -signal.SIGKILL
    spool = EventLog(path)
    assert spool.count == 101
    assert not spool.start(99, "x", {})
    assert spool.start(100, "x", {})


def test_artifacts_are_named_relative_to_the_sweep(tmp_path: Path) -> None:
    spool = EventLog(tmp_path / "sweep" / "spool.jsonl")
    spool.artifact(None, tmp_path / "sweep" / "report.html")
    assert lines(spool)[-1]["path"] == "report.html"
    with pytest.raises(ValueError, match="subpath"):
        spool.artifact(None, tmp_path / "elsewhere.html")


# URIs


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:pass@host:5000/x", "https://***@host:5000/x"),
        ("postgresql://me:p@ss@host/db", "postgresql://***@host/db"),
        ("https://host/?token=abc&x=1", "https://host/?token=***&x=1"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_redact_hides_what_is_secret_only(uri: str, shown: str) -> None:
    assert redact(uri) == shown


def test_the_default_store_is_an_absolute_sqlite_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = default_uri(Path("runs"))
    assert uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert default_artifacts(uri) == f"file://{tmp_path}/runs/artifacts"
    assert default_artifacts("http://host:5000") is None
    check_server(uri)
    with pytest.raises(RegistryError, match="can be read"):
        check_server(uri, write=False)


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns", "/tmp/mlruns"])
def test_a_plain_folder_is_refused(uri: str) -> None:
    with pytest.raises(RegistryError, match="plain folder.*sqlite:///"):
        check_server(uri)


def test_an_sqlite_store_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("these are my notes, not a database")
    (tmp_path / "folder.db").mkdir()
    for name in ("notes.db", "folder.db", "notes.db/mlflow.db"):
        with pytest.raises(RegistryError, match="can be written"):
            check_server(f"sqlite:///{tmp_path / name}")


@pytest.mark.mlflow
def test_a_server_that_does_not_answer_is_told_in_one_line_without_its_password() -> None:
    begin = time.monotonic()
    with pytest.raises(RegistryError, match="tracking server answers") as caught:
        check_server(f"http://user:hunter2@127.0.0.1:{free_port()}")
    assert time.monotonic() - begin < 15
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_provenance_names_versions_and_is_plain_text() -> None:
    facts = provenance()
    assert {"python", "platform", "torch"} <= facts.keys()
    assert all(isinstance(value, str) and value for value in facts.values())


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (ExportStatus(0), "up to date"),
        (ExportStatus(3), "3 events behind"),
        (ExportStatus(3, 1, "OSError: away"), "3 events behind, 1 refused (OSError: away)"),
    ],
)
def test_status_reads_as_one_line(status: ExportStatus, text: str) -> None:
    assert str(status) == text


# Shipping


def ship(root: Path, uri: str, spool: EventLog, **parent: Any) -> MlflowExporter:
    return MlflowExporter(
        root,
        spool,
        uri,
        "gansweep",
        default_artifacts(uri),
        parent.get("tags", {"space": "abc"}),
        parent.get("params", {"trials": 2}),
    )


def fill(spool: EventLog, trials: range, ticks: range) -> None:
    for trial in trials:
        spool.start(trial, f"trial-{trial:04d}", {"lr_g": 0.001 * (trial + 1), "loss": "hinge"})
        for kimg in ticks:
            spool.record(record(trial, kimg, fid=100.0 - kimg))


def runs_of(uri: str, spool: EventLog) -> dict[str, Any]:
    """The sweep's runs by their trial tag ('none' = the parent); fails where one stands twice."""
    from mlflow import MlflowClient

    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("gansweep")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`gansweep.sweep` = '{spool.id}'")
    numbers = [run.data.tags["gansweep.trial"] for run in found]
    assert len(numbers) == len(set(numbers))
    return dict(zip(numbers, found, strict=True))


def history(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    rows = MlflowClient(uri, uri).get_metric_history(run.info.run_id, metric)
    return sorted((row.step, row.value) for row in rows)


@pytest.mark.mlflow
def test_a_sweep_in_an_sqlite_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One store, several acts: making it takes MLflow seconds."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    root, uri = tmp_path / "out" / "sweep", default_uri(tmp_path / "out")
    spool = EventLog(root / "spool.jsonl")
    (root / "samples").mkdir()
    (root / "samples" / "grid.png").write_bytes(b"png")
    (root / "report.html").write_text("report")
    shipper = ship(root, uri, spool)
    fill(spool, range(2), range(5, 20, 5))
    spool.artifact(0, root / "samples", "samples")
    spool.artifact(None, root / "report.html")
    spool.artifact(None, root / "gone.html")
    spool.end(0, "FINISHED")
    spool.end(1, "KILLED", "pruned at 15 kimg")
    spool.finish("FINISHED", {"best_fid": 85.0}, {"gansweep.state": "finished"})
    assert shipper.close(60)
    assert shipper.status == ExportStatus(0, refused=1)  # gone.html
    assert not (tmp_path / "mlruns").exists()

    runs = runs_of(uri, spool)
    assert runs.keys() == {"none", "0", "1"}
    parent, client = runs["none"], MlflowClient(uri, uri)
    assert (parent.info.run_name, parent.info.status, parent.info.run_id) == (
        "sweep",
        "FINISHED",
        shipper.run_id,
    )
    assert parent.data.params == {"trials": "2"}
    assert parent.data.metrics == {"best_fid": 85.0}
    assert parent.data.tags["space"] == "abc"
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["report.html"]
    for number, status in (("0", "FINISHED"), ("1", "KILLED")):
        run = runs[number]
        assert run.info.run_name == f"trial-000{number}"
        assert run.info.status == status
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params == {"lr_g": str(0.001 * (int(number) + 1)), "loss": "hinge"}
        assert history(uri, run, "fid") == [(5, 95.0), (10, 90.0), (15, 85.0)]
    assert runs["1"].data.tags["gansweep.cause"] == "pruned at 15 kimg"
    assert [i.path for i in client.list_artifacts(runs["0"].info.run_id, "samples")] == ["samples/grid.png"]
    stamps = {row.timestamp for row in client.get_metric_history(runs["0"].info.run_id, "fid")}
    assert stamps <= {event["time_ms"] for event in lines(spool)}

    # Resumed, with the progress lost: the same runs, every row once, and the sweep runs again.
    spool.close()
    (root / "shipped.json").unlink()
    spool = EventLog(root / "spool.jsonl")
    shipper = ship(root, uri, spool)
    fill(spool, range(3), range(5, 25, 5))
    assert shipper.close(60)
    again = runs_of(uri, spool)
    assert again["0"].info.run_id == runs["0"].info.run_id
    assert again["none"].info.status == "RUNNING"
    assert [history(uri, again[str(n)], "fid") for n in range(3)] == [
        [(5, 95.0), (10, 90.0), (15, 85.0), (20, 80.0)]
    ] * 3

    # A row that the store never takes is counted and blocks nothing.
    spool.start(0, "trial-0000", {})
    spool.start(7, "trial-0007", {"a bad\nname!": 1})
    spool.record(record(7, 5))
    shipper = ship(root, uri, spool)
    assert shipper.close(60)
    assert shipper.status.refused == 2  # and gone.html, once more after the loss above
    assert history(uri, runs_of(uri, spool)["7"], "fid") == [(5, 50.0)]

    # Another store: everything goes there as well.
    other = default_uri(tmp_path / "other")
    shipper = ship(root, other, spool)
    assert shipper.close(60)
    assert runs_of(other, spool).keys() == {"none", "0", "1", "2", "7"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.mark.mlflow
@pytest.mark.slow
def test_a_server_killed_and_started_again_misses_nothing_and_holds_nothing_twice(
    tmp_path: Path, server: Server
) -> None:
    root = tmp_path / "sweep"
    spool = EventLog(root / "spool.jsonl")
    (root / "grid.png").write_bytes(b"png")
    server.start()
    check_server(server.uri)
    shipper = ship(root, server.uri, spool)
    fill(spool, range(1), range(5, 15, 5))
    assert shipper.flush(30)

    server.kill()
    begin = time.perf_counter()
    fill(spool, range(2), range(5, 105, 5))
    spool.artifact(1, root / "grid.png", "samples")
    assert time.perf_counter() - begin < 1.0  # nobody waits for the dead server
    assert not shipper.flush(2)
    assert shipper.status.behind == 40  # 38 new rows, one start, one file
    assert shipper.status.error

    server.start()
    assert shipper.flush(40)
    spool.end(0, "FINISHED")
    spool.finish("FINISHED")
    assert shipper.close(20)
    assert shipper.status == ExportStatus(0)
    runs = runs_of(server.uri, spool)
    assert runs.keys() == {"none", "0", "1"}
    for number in ("0", "1"):
        assert history(server.uri, runs[number], "fid") == [(k, 100.0 - k) for k in range(5, 105, 5)]
    assert (runs["0"].info.status, runs["1"].info.status) == ("FINISHED", "RUNNING")
    assert len(list((tmp_path / "artifacts").rglob("grid.png"))) == 1
    assert json.loads((root / "shipped.json").read_text())["sweep"] == spool.id
