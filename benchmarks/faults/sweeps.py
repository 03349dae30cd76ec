"""A real sweep in a separate process: started, observed through its files, killed, resumed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend

from faults.result import Result, wait_for
from pipeline.config import SweepPaths
from pipeline.records import TrialRecord
from pipeline.storage.files import read_json
from pipeline.tracking.event_log import read_events
from pipeline.tracking.tracking_uri import default_uri
from pipeline.training.checkpoint import read_failures, read_records

COMMAND = [sys.executable, "-m", "pipeline"]
START_SEC = 180.0
"""How long a sweep may take to its first record; most of it is Ray's start."""


class Sweep:
    """A sweep of the space `smoke` (or a file) on the digits, in the folder `out`.

    stores: flags of its databases, which `resume` needs again, as their passwords are stored nowhere.
    """

    def __init__(
        self, out: Path, *flags: str, space: str = "smoke", name: str = "smoke", stores: tuple[str, ...] = ()
    ) -> None:
        self.paths = SweepPaths(out / name)
        base = ["run", "--space", space, "--data", "digits", "--out", str(out), "--name", name]
        self._flags = [*base, "--second-extractor", "none", "--cpus-per-trial", "1", *flags, *stores]
        self._resume = ["resume", str(self.paths.root), *stores]
        self.process: subprocess.Popen[str] | None = None
        self.stderr = ""

    def start(self, *, resume: bool = False, **environment: str) -> None:
        """Start or resume it: the same command does both, as in job systems; or by the command `resume`."""
        self.process = subprocess.Popen(
            [*COMMAND, *(self._resume if resume else self._flags)],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def end(self, seconds: float = 600.0) -> int:
        """Wait for its end; returns the exit code."""
        assert self.process is not None
        self.stderr = self.process.communicate(timeout=seconds)[1]
        return self.process.returncode

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> None:
        """Send the driver a signal; after a SIGKILL wait until its child processes have ended too."""
        assert self.process is not None
        os.kill(self.process.pid, sign)
        if sign == signal.SIGKILL:
            self.process.communicate(timeout=60)

    @property
    def ended(self) -> bool:
        """Whether its process has ended."""
        return self.process is not None and self.process.poll() is not None

    def records(self, number: int) -> list[TrialRecord]:
        """The stored records of a trial."""
        return read_records(self.paths.trial(number))

    def numbers(self) -> list[int]:
        """The trials that have a folder."""
        folders = (self.paths.root / "trials").glob("*")
        return sorted(int(folder.name) for folder in folders if folder.name.isdigit())

    def count(self) -> int:
        """How many records all trials have."""
        return sum(len(self.records(number)) for number in self.numbers())

    def event_count(self) -> int:
        """How many lines the event log has: what the driver knows of."""
        return sum(1 for _ in self.paths.event_log.open("rb")) if self.paths.event_log.exists() else 0

    def wait_for_records(self, more: int, seconds: float = START_SEC) -> float:
        """Wait until there are `more` records than now; returns the seconds that it took."""
        before = self.count()
        return wait_for(lambda: self.ended or self.count() >= before + more, seconds, "new records")

    def worker(self) -> int | None:
        """The process id of a worker with a trial."""
        assert self.process is not None
        return next((pid for pid in descendants(self.process.pid) if "ImplicitFunc" in title(pid)), None)

    def records_without_times(self) -> dict[int, list[TrialRecord]]:
        """All records, with the measured times set to 0: equal for two runs of the same sweep."""
        zeros = {"images_per_sec": 0.0, "train_seconds": 0.0, "eval_seconds": 0.0}
        return {n: [dataclasses.replace(r, **zeros) for r in self.records(n)] for n in self.numbers()}

    @property
    def summary(self) -> dict[str, Any]:
        return read_json(self.paths.summary)

    def failures(self, number: int) -> list[str]:
        """The kinds of a trial's failures."""
        return [failure.kind for failure in read_failures(self.paths.trial(number))]


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def title(pid: int) -> str:
    """A process's command line; Ray puts there what its workers do."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def check_stores(result: Result, sweep: Sweep, trials: int, uri: str = "") -> None:
    """Check that every record is once in folder, event log, study and MLflow, and that nothing is running."""
    from mlflow import MlflowClient

    name = sweep.paths.root.name
    backend = JournalFileBackend(str(sweep.paths.study))
    study = optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))
    result.expect(len(study.trials) == trials, f"{len(study.trials)} trials in Optuna, not {trials}")
    result.expect(all(t.state.is_finished() for t in study.trials), "an orphan trial in Optuna")
    events = [event for _, event in read_events(sweep.paths.event_log) if event]
    rows = [(e["trial"], e["record"]["kimg"]) for e in events if e["event"] == "record"]
    stored = [(n, record.kimg) for n in sweep.numbers() for record in sweep.records(n)]
    result.expect(len(stored) == len(set(stored)), "a record is twice in a trial's folder")
    result.expect(sorted(rows) == sorted(stored), "the event log has other records than the trials")
    uri = uri or default_uri(sweep.paths.root.parent)
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(f"gansweep/{name}")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    result.expect(len(runs) == trials + 1, f"{len(runs)} runs in MLflow, not {trials + 1}")
    result.expect(all(run.info.status != "RUNNING" for run in runs), "a run is RUNNING in MLflow")
    for run in runs:
        number = run.data.tags["gansweep.trial"]
        if number == "none":
            continue
        steps = [row.step for row in client.get_metric_history(run.info.run_id, "objective")]
        expected = [record.kimg for record in sweep.records(int(number))]
        result.expect(
            sorted(steps) == expected, f"trial {number}: {len(steps)} of {len(expected)} metrics in MLflow"
        )
    for trial in study.trials:
        known = sorted(trial.intermediate_values)
        result.expect(known == [r.kimg for r in sweep.records(trial.number)], "Optuna knows other ticks")


def champion(sweep: Sweep) -> Any:
    """The best trial as JSON: its number, kimg, final fid and parameters."""
    best = sweep.summary.get("best") or {}
    return json.dumps({key: best.get(key) for key in ("trial", "kimg", "fid", "params")}, sort_keys=True)
