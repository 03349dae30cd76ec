"""The thread that carries the spool to MLflow: one run per sweep, one per trial, one batch per record.

Owns: run ids and their look-up, progress, retries. Refuses: letting an outage reach the search.

MLflow is imported inside functions: it takes two seconds, which the thread spends instead of the search.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import write_text
from pipeline.records import TrialRecord
from pipeline.tracker.spool import Event, Spool, read_events
from pipeline.tracker.store import ensure_experiment, first_line, make_folder, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

POLL_SEC = 0.5
BACKOFF_SEC = (1.0, 30.0)


@dataclass(frozen=True)
class Status:
    """Where the shipping stands: events not yet in MLflow, events MLflow refused for good, last error."""

    behind: int
    refused: int = 0
    error: str = ""

    def __str__(self) -> str:
        text = "up to date" if self.behind == 0 else f"{self.behind} events behind"
        text += f", {self.refused} refused" if self.refused else ""
        return text + (f" ({self.error})" if self.error else "")


@dataclass
class _Progress:
    """What has been shipped; lives in shipped.json and may lag behind, for shipping twice changes nothing."""

    sweep: str
    store: str
    offset: int = 0
    events: int = 0
    refused: int = 0
    parent: str = ""
    described: bool = False
    runs: dict[str, str] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    artifacts: list[int] = field(default_factory=list)  # where the lines begin, still to upload

    @classmethod
    def read(cls, path: Path, sweep: str, store: str, size: int) -> _Progress:
        """The saved progress; a fresh one if it is of another sweep or store, damaged or absent."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            saved = cls(**json.loads(path.read_text(encoding="utf-8")))
            if (saved.sweep, saved.store) == (sweep, store) and saved.offset <= size:
                return saved
        return cls(sweep, store)

    def write(self, path: Path) -> None:
        write_text(path, json.dumps(vars(self)))


def unshipped(root: Path, spool: Spool, tracking_uri: str) -> Counter[str]:
    """How many events of each kind in the spool of the sweep in `root` the store has not got yet."""
    saved = _Progress.read(root / "shipped.json", spool.id, redact(tracking_uri), spool.path.stat().st_size)
    kinds = Counter(event["event"] for _, event in read_events(spool.path, saved.offset) if event is not None)
    kinds["artifact"] += len(saved.artifacts)
    return +kinds


class Shipper:
    """A background thread that carries the spool to MLflow; whatever fails there is tried again later.

    Args:
        sweep_root: the sweep's folder; shipped.json in it keeps the progress.
        artifact_location: URI for artifacts of a new experiment; None = the tracking server's own choice.
        parent_tags, parent_params: of the sweep's run; params are logged once and then fixed.
    """

    def __init__(
        self,
        sweep_root: Path,
        spool: Spool,
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
        self._progress = _Progress.read(
            self._saved, spool.id, redact(tracking_uri), spool.path.stat().st_size
        )
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._ready, self._error = False, ""
        self._hurry, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-shipper", daemon=True)
        self._thread.start()

    @property
    def status(self) -> Status:
        """How far behind MLflow is, and why."""
        opened = 0 if self._ready else 1  # the sweep's own run is still to be made
        behind = self._spool.count - self._progress.events + len(self._progress.artifacts)
        return Status(max(behind, opened), self._progress.refused, self._error)

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
        begin = self._progress.offset
        for end, event in read_events(self._spool.path, begin):
            if self._stop.is_set():
                return
            self._ship(event, begin)
            self._progress.offset, begin = end, end
            self._progress.events += 1
            self._progress.write(self._saved)

    def _open(self) -> None:
        """Connect, and make sure of the sweep's own run; a store that lost it gets everything again."""
        from mlflow import MlflowClient

        # It prints the traceback of what it raises (an sqlite store on a full disk); we have the error.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        make_folder(self._uri)
        self._client = MlflowClient(self._uri, self._uri)
        self._experiment_id = ensure_experiment(self._client, self._experiment, self._artifact_location)
        if self._progress.parent and not self._exists(self._progress.parent):
            self._progress = _Progress(self._progress.sweep, self._progress.store)
        if not self._progress.parent:
            self._progress.parent = self._find_or_create("", self._root.resolve().name, None)
        if not self._progress.described:
            self._log(self._progress.parent, params=self._params)
        self._log(self._progress.parent, tags=self._tags)
        self._progress.described = True
        self._progress.write(self._saved)
        self._ready = True

    def _ship(self, event: Event | None, begin: int) -> None:
        kinds: dict[str, Callable[[Event], None]] = {
            "start": self._ship_start,
            "record": self._ship_record,
            "failure": self._ship_failure,
            "end": self._ship_end,
            "finish": self._ship_finish,
        }
        if event is None or event["event"] == "open":
            return
        if event["event"] == "artifact":
            self._progress.artifacts.append(begin)
        elif event["event"] in kinds:
            self._or_refused(lambda: kinds[event["event"]](event))

    def _or_refused(self, act: Callable[[], None]) -> None:
        """Do it; what the store will never take is counted and left out, so that it blocks nothing."""
        from mlflow.exceptions import MlflowException

        try:
            act()
        except MlflowException as error:
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
                raise
            self._progress.refused += 1

    def _ship_start(self, event: Event) -> None:
        run = self._trial_run(event)
        self._log(run, params=event.get("params", {}))

    def _ship_record(self, event: Event) -> None:
        record = TrialRecord.from_dict(event["record"])
        self._log(
            self._trial_run(event),
            metrics=record.metrics(),
            tags={"gansweep.verdict": record.verdict},
            time_ms=event["time_ms"],
            step=record.kimg,
        )

    def _ship_failure(self, event: Event) -> None:
        self._log(self._trial_run(event), tags={f"gansweep.failure.{event['index']}": event["text"]})

    def _ship_end(self, event: Event) -> None:
        run = self._trial_run(event)
        self._log(run, tags={"gansweep.cause": event["cause"]} if event.get("cause") else {})
        self._terminate(run, event)

    def _ship_finish(self, event: Event) -> None:
        self._log(
            self._progress.parent,
            metrics=event.get("metrics", {}),
            tags=event.get("tags", {}),
            time_ms=event["time_ms"],
        )
        self._terminate(self._progress.parent, event)

    def _upload(self, offset: int) -> None:
        _, event = next(read_events(self._spool.path, offset))
        path = self._root / (event or {"path": ""})["path"]
        if event is None or not path.exists():  # deleted meanwhile: nothing will bring it back
            self._progress.refused += 1
            return
        run = self._progress.parent if event["trial"] is None else self._trial_run(event)
        send = self._mlflow.log_artifacts if path.is_dir() else self._mlflow.log_artifact
        self._or_refused(lambda: send(run, str(path), event.get("artifact_dir") or None))

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

    def _trial_run(self, event: Event) -> str:
        """The run of the event's trial, made where there is none, opened again where it had ended."""
        number = str(event["trial"])
        if number not in self._progress.runs:
            name = event.get("name") or f"trial-{int(number):04d}"
            self._progress.runs[number] = self._find_or_create(number, name, event["time_ms"])
            self._progress.write(self._saved)
        run = self._progress.runs[number]
        if event["event"] in ("start", "record"):
            for again in {run, self._progress.parent} & set(self._progress.ended):
                self._mlflow.update_run(again, status="RUNNING")
                self._progress.ended.remove(again)
        return run

    def _find_or_create(self, trial: str, name: str, time_ms: int | None) -> str:
        """Look before creating: a request that timed out, or a kill before shipped.json, may have made it."""
        tags = {"gansweep.sweep": self._spool.id, "gansweep.trial": trial or "none"}
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self._mlflow.search_runs([self._experiment_id], query, max_results=1)
        if found:
            return str(found[0].info.run_id)
        if trial:
            tags["mlflow.parentRunId"] = self._progress.parent
        run = self._mlflow.create_run(self._experiment_id, start_time=time_ms, tags=tags, run_name=name)
        return str(run.info.run_id)

    def _log(
        self,
        run: str,
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        time_ms: int = 0,
        step: int = 0,
    ) -> None:
        """One `log_batch` (100 params are its limit). The event's time makes a repetition harmless."""
        from mlflow.entities import Metric, Param, RunTag

        rows = [Metric(key, float(value), time_ms, step) for key, value in (metrics or {}).items()]
        marks = [RunTag(key, str(value)[:5000]) for key, value in (tags or {}).items()]
        given = [Param(key, str(value)[:6000]) for key, value in (params or {}).items()]
        if rows or marks:
            self._mlflow.log_batch(run, metrics=rows, tags=marks)
        for first in range(0, len(given), 100):
            self._mlflow.log_batch(run, params=given[first : first + 100])

    def _terminate(self, run: str, event: Event) -> None:
        self._mlflow.set_terminated(run, event["status"], event["time_ms"])
        if run not in self._progress.ended:
            self._progress.ended.append(run)
