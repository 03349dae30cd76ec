"""The thread that carries the spool to MLflow: one run per sweep, one per trial, few calls for many records.

Owns: run ids and their look-up, progress, retries. Refuses: letting an outage reach the search.

MLflow is imported inside functions: it takes two seconds, which the thread spends instead of the search.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import first_line, redact
from pipeline.tracking.cursor import ExportCursor
from pipeline.tracking.event_log import Event, EventLog, read_events
from pipeline.tracking.log_batch import RunBatch, batch_events
from pipeline.tracking.tracking_uri import ensure_experiment, make_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_SEC = 0.5
BACKOFF_SEC = (1.0, 30.0)
CHUNK = 200
"""Events between two looks at `close`, and between two writings of the progress."""
_TOLD = ("start", "record", "failure", "end", "finish")


@dataclass(frozen=True)
class ExportStatus:
    """Where the shipping stands: events not yet in MLflow, events MLflow refused for good, last error."""

    behind: int
    refused: int = 0
    error: str = ""

    def __str__(self) -> str:
        text = "up to date" if self.behind == 0 else f"{self.behind} events behind"
        text += f", {self.refused} refused" if self.refused else ""
        return text + (f" ({self.error})" if self.error else "")


class MlflowExporter:
    """A background thread that carries the spool to MLflow; whatever fails there is tried again later.

    Args:
        sweep_root: the sweep's folder; shipped.json in it keeps the progress.
        artifact_location: URI for artifacts of a new experiment; None = the tracking server's own choice.
        parent_tags, parent_params: of the sweep's run; params are logged once and then fixed.
    """

    def __init__(
        self,
        sweep_root: Path,
        spool: EventLog,
        tracking_uri: str,
        experiment: str,
        artifact_location: str | None,
        parent_tags: Mapping[str, str],
        parent_params: Mapping[str, object],
    ) -> None:
        self._root, self._spool, self._uri = sweep_root, spool, tracking_uri
        self._experiment, self._artifact_location = experiment, artifact_location
        self._tags, self._params = dict(parent_tags), dict(parent_params)
        self._saved = sweep_root / "shipped.json"
        self._progress = ExportCursor.read(
            self._saved, spool.id, redact(tracking_uri), spool.path.stat().st_size
        )
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._tried = spool.path.stat().st_size  # what stands before may have been sent already
        self._ready, self._error = False, ""
        self._hurry, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-shipper", daemon=True)
        self._thread.start()

    @property
    def status(self) -> ExportStatus:
        """How far behind MLflow is, and why."""
        opened = 0 if self._ready else 1  # the sweep's own run is still to be made
        behind = self._spool.count - self._progress.events + len(self._progress.artifacts)
        return ExportStatus(max(behind, opened), self._progress.refused, self._error)

    @property
    def run_id(self) -> str | None:
        """The MLflow run of the sweep, once there is one."""
        return self._progress.parent or None

    def trial_run_id(self, trial: int) -> str | None:
        """The MLflow run of a trial, once there is one."""
        return self._progress.runs.get(str(trial))

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until MLflow has everything; False where it has not."""
        deadline = time.monotonic() + timeout
        while self.status.behind and time.monotonic() < deadline:
            self._hurry.set()  # cuts the wait short, a backoff's too
            pause = time.monotonic() + 1.0
            while self.status.behind and time.monotonic() < min(pause, deadline):
                time.sleep(0.02)
        return self.status.behind == 0

    def close(self, timeout: float = 10.0) -> bool:
        """Flush, then stop the thread. What is left stays in the spool for the next time."""
        done = self.flush(timeout)
        self._stop.set()
        self._hurry.set()
        self._thread.join(timeout=5.0)
        return done

    # The thread

    def _work(self) -> None:
        delay = 0.0
        while not self._stop.is_set():
            try:
                self._pump()
            except Exception as error:  # an outage has many types, and none may end the thread
                self._error, self._client, self._ready = redact(first_line(error)), None, False
                with contextlib.suppress(OSError):
                    self._tried = self._spool.path.stat().st_size
                delay = min(max(BACKOFF_SEC[0], 2 * delay), BACKOFF_SEC[1])
            else:
                self._error, delay = "", 0.0
            self._hurry.wait(delay or POLL_SEC)
            self._hurry.clear()

    def _pump(self) -> None:
        """Ship all that stands in the spool: events first, and again after each file, which may be slow."""
        if not self._ready:
            self._open()
        self._ship_events()
        while self._progress.artifacts and not self._stop.is_set():
            self._upload(self._progress.artifacts[0])
            del self._progress.artifacts[0]
            self._progress.write(self._saved)
            self._ship_events()

    def _ship_events(self) -> None:
        while not self._stop.is_set():
            begin = self._progress.offset
            chunk = list(itertools.islice(self._settled_events(begin), CHUNK))
            if not chunk:
                return
            ends = [end for end, _ in chunk]
            self._ship(list(zip([begin, *ends[:-1]], (event for _, event in chunk), strict=True)))
            self._progress.offset = ends[-1]
            self._progress.events += len(chunk)
            self._progress.write(self._saved)

    def _settled_events(self, begin: int) -> Iterator[tuple[int, Event | None]]:
        settled = self._spool.settled()
        for end, event in read_events(self._spool.path, begin):
            if end > settled:
                return
            yield end, event

    def _open(self) -> None:
        """Connect, and make sure of the sweep's own run; a store that lost it gets everything again."""
        from mlflow import MlflowClient

        # It prints the traceback of what it raises (an sqlite store on a full disk); we have the error.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        make_folder(self._uri)
        self._client = MlflowClient(self._uri, self._uri)
        self._experiment_id = ensure_experiment(self._client, self._experiment, self._artifact_location)
        if self._progress.parent and not self._exists(self._progress.parent):
            self._progress = ExportCursor(self._progress.sweep, self._progress.store)
        if not self._progress.parent:
            self._progress.parent = self._find_or_create("", self._root.resolve().name, None)
        if not self._progress.described:
            self._log(self._progress.parent, RunBatch().add(params=self._params))
        self._log(self._progress.parent, RunBatch().add(tags=self._tags))
        self._progress.described = True
        self._progress.write(self._saved)
        self._ready = True

    def _ship(self, chunk: list[tuple[int, Event | None]]) -> None:
        """Ship events and where each begins: those of one run in as few calls as may be.

        An error leaves all of them for another time: shipping twice changes nothing.
        """
        refused, files, waiting = 0, [], dict[str, list[Event]]()
        for begin, event in chunk:
            kind = event["event"] if event else ""
            if kind == "artifact":
                files.append(begin)
            if event is None or kind not in _TOLD:
                continue
            run = self._run_of(event, begin)
            if run is None:
                refused += 1
                continue
            waiting.setdefault(run, []).append(event)
            if kind in ("end", "finish"):
                refused += self._tell(run, waiting.pop(run))
                refused += not self._taken(self._terminate, run, event)
        refused += sum(self._tell(run, events) for run, events in waiting.items())
        self._progress.refused += refused
        self._progress.artifacts += files

    def _tell(self, run: str, events: list[Event]) -> int:
        """Tell a run of these events; returns how many the store will never take."""
        told: RunBatch | None = None
        with contextlib.suppress(ValueError):  # one of them is none of ours
            told = batch_events(events)
        if told is not None and self._taken(self._log, run, told):
            return 0
        return 1 if len(events) == 1 else sum(self._tell(run, [event]) for event in events)

    def _log(self, run: str, told: RunBatch) -> None:
        for call in told.calls():
            self._mlflow.log_batch(run, **call)

    def _taken(self, act: Callable[..., object], *given: object) -> bool:
        """Do it; False for what the store will never take, so that it blocks nothing."""
        from mlflow.exceptions import MlflowException

        try:
            act(*given)
        except MlflowException as error:
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
                raise
            return False
        return True

    def _upload(self, offset: int) -> None:
        _, event = next(read_events(self._spool.path, offset))
        path = self._root / (event or {"path": ""})["path"]
        if event is None or not path.exists():  # deleted meanwhile: nothing will bring it back
            self._progress.refused += 1
            return
        run = self._progress.parent if event["trial"] is None else self._run_of(event)
        send = self._mlflow.log_artifacts if path.is_dir() else self._mlflow.log_artifact
        if run is None or not self._taken(send, run, str(path), event.get("artifact_dir") or None):
            self._progress.refused += 1

    # Runs

    @property
    def _mlflow(self) -> MlflowClient:
        if self._client is None:
            raise ConnectionError("not connected")
        return self._client

    def _exists(self, run: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._mlflow.get_run(run)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def _run_of(self, event: Event, begin: int = 0) -> str | None:
        """The run that an event is of, None where the store will never have it.

        One that had ended is opened again. begin: where the event stands in the spool.
        """
        progress = self._progress
        if event["event"] == "finish":
            return progress.parent
        number = str(event["trial"])
        if number not in progress.runs:
            name = event.get("name") or f"trial-{int(number):04d}"
            made = functools.partial(
                self._find_or_create, number, name, event["time_ms"], begin < self._tried
            )
            if not self._taken(lambda: progress.runs.update({number: made()})):
                return None
        run = progress.runs[number]
        if event["event"] in ("start", "record"):
            for again in (run, progress.parent):
                if again in progress.ended and self._taken(self._reopen, again):
                    del progress.ended[again]
        return run

    def _reopen(self, run: str) -> None:
        self._mlflow.update_run(run, status="RUNNING")

    def _find_or_create(self, trial: str, name: str, time_ms: int | None, look: bool = True) -> str:
        """Look before creating: a request that timed out, or a kill before shipped.json, may have made it."""
        tags = {"gansweep.sweep": self._spool.id, "gansweep.trial": trial or "none"}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self._mlflow.search_runs([self._experiment_id], query, max_results=1) if look else []
        if found:
            return str(found[0].info.run_id)
        if trial:
            tags["mlflow.parentRunId"] = self._progress.parent
        run = self._mlflow.create_run(self._experiment_id, start_time=time_ms, tags=tags, run_name=name)
        return str(run.info.run_id)

    def _terminate(self, run: str, event: Event) -> None:
        self._mlflow.set_terminated(run, event["status"], event["time_ms"])
        self._progress.ended[run] = event["status"]
