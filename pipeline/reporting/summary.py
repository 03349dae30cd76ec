"""Writes summary.json, the state of a sweep that scripts, the live view and the report read.

The file is replaced atomically while the sweep runs. Its keys are a contract (README). JSON has no NaN: a
number that is unknown or not finite is null.
"""

from __future__ import annotations

import json
import time
from typing import Any

from pipeline.config import SweepConfig, SweepPaths
from pipeline.records import TrialRecord
from pipeline.search.trial_manager import STATES, SweepTrial, TrialManager, rank_trials
from pipeline.storage.files import DiskSpace, size_of, write_text
from pipeline.storage.summary_file import read_summary
from pipeline.training.checkpoint import Failure

_PERIOD_SEC = 2.0
_SIZING_SEC = 60.0
_LEADERS = 100


class Summary:
    """Keeps summary.json of a running sweep up to date; a `SweepCallback`.

    Writes nothing until `manager` is set; callbacks rewrite the file at most every two seconds.

    Args:
        paths: the sweep's folder.
        config: limits of the sweep.
        evaluator: the `evaluator` key: extractor, hash and number of samples.
    """

    def __init__(
        self,
        paths: SweepPaths,
        config: SweepConfig,
        evaluator: dict[str, Any],
    ) -> None:
        self.paths, self.config = paths, config
        before = read_summary(paths.summary)
        self.extra: dict[str, Any] = {
            "registered": before.get("registered"),
            "evaluator": evaluator,
            "finalists": before.get("finalists", []),
        }
        self.state = "running"
        self.manager: TrialManager | None = None
        self._written = 0.0
        self._size = (-_SIZING_SEC, 0)  # time of the last measurement, bytes
        self._space = DiskSpace("summary.json is not updated")

    def on_start(self, trial: SweepTrial) -> None:
        self.write()

    def on_record(self, trial: SweepTrial, record: TrialRecord) -> None:
        self.write()

    def on_failure(self, trial: SweepTrial, failure: Failure) -> None:
        self.write()

    def on_end(self, trial: SweepTrial) -> None:
        self.write()

    def write(self, *, force: bool = False) -> None:
        """Rewrite the file; without `force` at most every two seconds."""
        now = time.monotonic()
        if self.manager is None or (not force and now - self._written < _PERIOD_SEC):
            return
        self._written = now
        with self._space.tolerate_full():
            write_text(self.paths.summary, json.dumps(self.content(), indent=1, allow_nan=False) + "\n")

    def _disk(self) -> int:
        """Size of the sweep's folder in bytes.

        Measured at most once a minute while the sweep runs: it may be many files on a slow disk.
        """
        if time.monotonic() - self._size[0] > _SIZING_SEC or self.state != "running":
            self._size = time.monotonic(), size_of(self.paths.root)
        return self._size[1]

    def content(self) -> dict[str, Any]:
        """The whole summary as plain values."""
        assert self.manager is not None
        trials = list(self.manager.trials.values())
        ranked = rank_trials(trials)
        finalists = self.extra["finalists"]
        return {
            "name": self.config.name,
            "state": self.state,
            "reason": self.manager.reason,
            "stopped_by": self.manager.stopped_by or None,
            "wall_seconds": round(self.manager.seconds, 2),
            "kimg_total": sum(trial.records[-1].kimg for trial in trials if trial.records),
            "trials": {state: sum(trial.state == state for trial in trials) for state in reversed(STATES)},
            "trials_asked": self.config.trials,
            "time_budget_sec": self.config.time_budget_sec,
            "gpu_hours": round(self.manager.gpu_hours, 4),
            "cost": round(self.manager.cost, 4) if self.config.price else None,
            "best": finalists[0]["best"] if finalists else _best(ranked),
            "running": [_running(trial) for trial in trials if trial.state == "running"],
            "disk_bytes": self._disk(),
            "images_per_sec": round(sum(_speed(trial) for trial in trials if trial.state == "running"), 1),
            "failures": [
                {"trial": trial.number, **vars(failure)} for trial in trials for failure in trial.failures
            ],
            "leaderboard": [best_row(trial) for trial in ranked[:_LEADERS]],
            **self.extra,
        }


def best_row(trial: SweepTrial) -> dict[str, Any]:
    """The leaderboard's row of a trial: its numbers at its best tick, and how it ended."""
    best, last = trial.best, trial.records[-1] if trial.records else None
    stable = best and last and best.fid and last.fid
    return {
        "trial": trial.number,
        "state": trial.state,
        "fid": best.fid if best else None,
        "balance": best.to_dict()["balance"] if best else None,
        "auc": best.to_dict()["auc"] if best else None,
        "kimg": best.kimg if best else None,
        "last_kimg": last.kimg if last else 0,
        "verdict": last.verdict if last else "",
        "stability": last.fid / best.fid if stable and best and last and best.fid and last.fid else None,
        "params": trial.params,
        "cause": trial.cause,
    }


def _best(ranked: list[SweepTrial]) -> dict[str, Any] | None:
    row = best_row(ranked[0]) if ranked else {"fid": None}
    return None if row["fid"] is None else {k: row[k] for k in ("trial", "fid", "balance", "kimg", "params")}


def _running(trial: SweepTrial) -> dict[str, Any]:
    row = best_row(trial)
    return {key: row[key] for key in ("trial", "fid", "balance", "last_kimg", "verdict")}


def _speed(trial: SweepTrial) -> float:
    return trial.records[-1].images_per_sec if trial.records else 0.0
