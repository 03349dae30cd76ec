"""The thread that exports an event log to MLflow: one run per sweep, one per trial, few calls.

MLflow is imported inside functions: that takes two seconds, which this thread spends, not the search.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import first_line, redact
from pipeline.tracking._compat import quiet_store
from pipeline.tracking.cursor import ExportCursor, store_key
from pipeline.tracking.event_log import Event, EventLog, read_events
from pipeline.tracking.log_batch import RunBatch, batch_events
from pipeline.tracking.provenance import provenance
from pipeline.tracking.tracking_uri import default_artifacts, ensure_experiment, open_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_SEC = 0.5
BACKOFF_SEC = (1.0, 30.0)
CHUNK = 200
"""Events that are exported before the cursor is saved and `close` is looked for."""
_LOGGED = ("start", "record", "failure", "end", "finish")
"""Events that are logged to a run; artifacts are uploaded after them."""
_PERMANENT = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
"""MLflow's error codes for what will fail at every further attempt too."""


@dataclass(frozen=True)
class ExportStatus:
    """State of the export: events not yet in MLflow, events that it will never accept, last error."""

    behind: int
    refused: int = 0
    error: str = ""

    def __str__(self) -> str:
        text = "up to date" if self.behind == 0 else f"{self.behind} events behind"
        text += f", {self.refused} refused" if self.refused else ""
        return text + (f" ({self.error})" if self.error else "")


class MlflowExporter:
    """A background thread that exports an event log to MLflow; what fails is tried again, with a backoff.

    An outage of the store never reaches the search.

    Args:
        sweep_root: the sweep's folder; shipped.json in it holds the cursor.
        tags, params: of the sweep's run; params are logged once and then fixed.
    """

    def __init__(
        self,
        sweep_root: Path,
        event_log: EventLog,
        tracking_uri: str,
        experiment: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
    ) -> None:
        self._root, self._event_log, self._uri = sweep_root, event_log, tracking_uri
        self._experiment, self._tags, self._params = experiment, dict(tags), dict(params)
        self._cursor_path = sweep_root / "shipped.json"
        size = event_log.path.stat().st_size
        self._cursor = ExportCursor.read(
            self._cursor_path, event_log.id, store_key(sweep_root, tracking_uri), size
        )
        self._client: MlflowClient  # made by `_open`
        self._experiment_id = ""
        self._maybe_sent = size  # events before this offset may have been sent already
        self._ready, self._error = False, ""
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-exporter", daemon=True)
        self._thread.start()

    @property
    def status(self) -> ExportStatus:
        """How far behind MLflow is, and why."""
        least = 0 if self._ready else 1  # the sweep's own run is still to be created
        behind = self._event_log.count - self._cursor.events + len(self._cursor.artifacts)
        return ExportStatus(max(behind, least), self._cursor.refused, self._error)

    @property
    def run_id(self) -> str | None:
        """Id of the sweep's MLflow run; None until it has been created."""
        return self._cursor.parent or None

    def trial_run_id(self, trial: int) -> str | None:
        """Id of a trial's MLflow run; None until it has been created."""
        return self._cursor.runs.get(str(trial))

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until MLflow has everything; False where it has not."""
        deadline = time.monotonic() + timeout
        while self.status.behind and time.monotonic() < deadline:
            self._wake.set()  # ends the pause between two attempts, a backoff too
            next_wake = time.monotonic() + 1.0
            while self.status.behind and time.monotonic() < min(next_wake, deadline):
                time.sleep(0.02)
        return self.status.behind == 0

    def close(self, timeout: float = 10.0) -> bool:
        """Flush, then stop the thread; False where events are left, which the event log keeps for later."""
        done = self.flush(timeout)
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=5.0)
        return done

    # The thread

    def _run(self) -> None:
        delay = 0.0
        while not self._stop.is_set():
            try:
                self._export_pending()
            except Exception as error:  # an outage raises many types, and none may end the thread
                self._error, self._ready = redact(first_line(error)), False
                with contextlib.suppress(OSError):
                    self._maybe_sent = self._event_log.path.stat().st_size
                delay = min(max(BACKOFF_SEC[0], 2 * delay), BACKOFF_SEC[1])
            else:
                self._error, delay = "", 0.0
            self._wake.wait(delay or POLL_SEC)
            self._wake.clear()

    def _export_pending(self) -> None:
        """Export events, then upload files; new events are exported after each upload, which may be slow."""
        if not self._ready:
            self._open()
        self._export_events()
        while self._cursor.artifacts and not self._stop.is_set():
            self._upload(self._cursor.artifacts[0])
            del self._cursor.artifacts[0]
            self._cursor.write(self._cursor_path)
            self._export_events()

    def _export_events(self) -> None:
        while not self._stop.is_set():
            begin = self._cursor.offset
            durable_size = self._event_log.durable_size()
            events = itertools.islice(read_events(self._event_log.path, begin), CHUNK)
            chunk = [(end, event) for end, event in events if end <= durable_size]
            if not chunk:
                return
            ends = [end for end, _ in chunk]
            self._export_chunk(list(zip([begin, *ends[:-1]], (event for _, event in chunk), strict=True)))
            self._cursor.offset = ends[-1]
            self._cursor.events += len(chunk)
            self._cursor.write(self._cursor_path)

    def _open(self) -> None:
        """Connect, and find or create the sweep's run; a store that has lost it gets every event again."""
        quiet_store()  # `status` shows its errors
        self._client = open_store(self._uri)
        artifacts = default_artifacts(self._uri)
        self._experiment_id = ensure_experiment(self._client, self._experiment, artifacts)
        parent = self._find_or_create("", self._root.resolve().name, None)
        if parent != self._cursor.parent:
            self._cursor = ExportCursor(self._cursor.sweep, self._cursor.store, parent=parent)
        if not self._cursor.described:
            # Refused where a path among them is another since the sweep was moved: those from before stay.
            self._accepted(self._log, self._cursor.parent, RunBatch().add(params=self._params))
        self._log(self._cursor.parent, RunBatch().add(tags=self._tags))
        self._cursor.described = True
        self._cursor.write(self._cursor_path)
        self._ready = True

    def _export_chunk(self, chunk: list[tuple[int, Event | None]]) -> None:
        """Log events (offset of the line, event): those of one run in as few calls as possible.

        After an error all of them are tried again: logging an event twice changes nothing.
        """
        refused, artifacts, pending = 0, [], dict[str, list[Event]]()
        for begin, event in chunk:
            kind = event["event"] if event else ""
            if kind == "artifact":
                artifacts.append(begin)
            if event is None or kind not in _LOGGED:
                continue
            run = self._run_of(event, begin)
            if run is None:
                refused += 1
                continue
            pending.setdefault(run, []).append(event)
            if kind in ("end", "finish"):
                refused += self._log_events(run, pending.pop(run))
                refused += not self._accepted(self._terminate, run, event)
        refused += sum(self._log_events(run, events) for run, events in pending.items())
        self._cursor.refused += refused
        self._cursor.artifacts += artifacts

    def _log_events(self, run: str, events: list[Event]) -> int:
        """Log these events to a run; returns how many the store refuses.

        Where it refuses them together, each is logged alone.
        """
        batch: RunBatch | None = None
        with contextlib.suppress(ValueError):  # a damaged record
            batch = batch_events(events)
        if batch is not None and self._accepted(self._log, run, batch):
            return 0
        return 1 if len(events) == 1 else sum(self._log_events(run, [event]) for event in events)

    def _log(self, run: str, batch: RunBatch) -> None:
        for call in batch.calls():
            self._client.log_batch(run, **call)

    def _accepted(self, request: Callable[..., object], *arguments: object) -> bool:
        """Make a request; False if the store will refuse it every time, so that it need not be repeated.

        Every other error is raised.
        """
        from mlflow.exceptions import MlflowException

        try:
            request(*arguments)
        except MlflowException as error:
            if error.error_code not in _PERMANENT:
                raise
            return False
        return True

    def _upload(self, offset: int) -> None:
        _, event = next(read_events(self._event_log.path, offset))
        path = self._root / (event or {"path": ""})["path"]
        if event is None or not path.exists():  # deleted in the meantime
            self._cursor.refused += 1
            return
        run = self._cursor.parent if event["trial"] is None else self._run_of(event)
        send = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        if run is None or not self._accepted(send, run, str(path), event.get("artifact_dir") or None):
            self._cursor.refused += 1

    # Runs

    def _run_of(self, event: Event, begin: int = 0) -> str | None:
        """The run of an event, created where need be; None where the store refuses to create it.

        A run that had ended is opened again. begin: offset of the event in the log.
        """
        cursor = self._cursor
        if event["event"] == "finish":
            return cursor.parent
        number = str(event["trial"])
        if number not in cursor.runs:
            name = event.get("name") or f"trial-{int(number):04d}"
            look = begin < self._maybe_sent

            def create() -> None:
                cursor.runs[number] = self._find_or_create(number, name, event["time_ms"], look)

            if not self._accepted(create):
                return None
        run = cursor.runs[number]
        if event["event"] in ("start", "record"):
            for ended in (run, cursor.parent):
                if ended in cursor.ended and self._accepted(self._client.update_run, ended, "RUNNING"):
                    del cursor.ended[ended]
        return run

    def _find_or_create(self, trial: str, name: str, time_ms: int | None, look: bool = True) -> str:
        """Id of the run of a trial ("" = of the sweep).

        look: search before creating it, for a request that timed out, or one before a kill, may have made it.
        """
        tags = {"gansweep.sweep": self._event_log.id, "gansweep.trial": trial or "none"}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self._client.search_runs([self._experiment_id], query, max_results=1) if look else []
        if found:
            return str(found[0].info.run_id)
        if trial:
            tags["mlflow.parentRunId"] = self._cursor.parent
        run = self._client.create_run(self._experiment_id, start_time=time_ms, tags=tags, run_name=name)
        return str(run.info.run_id)

    def _terminate(self, run: str, event: Event) -> None:
        self._client.set_terminated(run, event["status"], event["time_ms"])
        self._cursor.ended[run] = event["status"]


def start_exporter(
    paths: SweepPaths,
    config: SweepConfig,
    event_log: EventLog,
    uri: str,
    tables: Mapping[str, Mapping[str, object]],
    space_hash: str,
) -> MlflowExporter:
    """Start to export a sweep's event log to the store at `uri`.

    tables: those of sweep.toml that describe images, evaluator and code.
    """
    rows = {f"{table}.{key}": str(value) for table, row in tables.items() for key, value in row.items()}
    tags = {**provenance(), **rows, "space.hash": space_hash}
    params = dataclasses.asdict(config)
    return MlflowExporter(paths.root, event_log, uri, f"gansweep/{config.name}", tags, params)
