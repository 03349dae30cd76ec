"""summary.json: what a sweep has come to, rewritten atomically as it goes.

Owns: the file that scripts, the live view and the report read; its keys are a contract (README).
Refuses: deciding anything; MLflow.

NaN policy: JSON has no NaN; a number that is not known is null.
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
    """Keeps summary.json of a running search; a `Listener` that rewrites at most every two seconds."""

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
        self.ledger: TrialManager | None = None
        self._written = 0.0
        self._sized = (-_SIZING_SEC, 0)  # when, and how much
        self._space = DiskSpace("summary.json stands still")

    def on_start(self, entry: SweepTrial) -> None:
        self.write()

    def on_record(self, entry: SweepTrial, record: TrialRecord) -> None:
        self.write()

    def on_failure(self, entry: SweepTrial, failure: Failure) -> None:
        self.write()

    def on_end(self, entry: SweepTrial) -> None:
        self.write()

    def write(self, *, force: bool = False) -> None:
        """Rewrite the file, unless that was done a moment ago."""
        now = time.monotonic()
        if self.ledger is None or (not force and now - self._written < _PERIOD_SEC):
            return
        self._written = now
        with self._space.awaited():
            write_text(self.paths.summary, json.dumps(self.content(), indent=1, allow_nan=False) + "\n")

    def _disk(self) -> int:
        """Size of the sweep's folder; looked at once a minute, for it may be many files on a slow disk."""
        if time.monotonic() - self._sized[0] > _SIZING_SEC or self.state != "running":
            self._sized = time.monotonic(), size_of(self.paths.root)
        return self._sized[1]

    def content(self) -> dict[str, Any]:
        """The whole summary as plain values."""
        assert self.ledger is not None
        entries = list(self.ledger.entries.values())
        ranked = rank_trials(entries)
        finalists = self.extra["finalists"]
        return {
            "name": self.config.name,
            "state": self.state,
            "reason": self.ledger.reason,
            "stopped_by": self.ledger.stopped_by or None,
            "wall_seconds": round(self.ledger.seconds, 2),
            "kimg_total": sum(e.records[-1].kimg for e in entries if e.records),
            "trials": {state: sum(e.state == state for e in entries) for state in reversed(STATES)},
            "trials_asked": self.config.trials,
            "time_budget_sec": self.config.time_budget_sec,
            "gpu_hours": round(self.ledger.gpu_hours, 4),
            "cost": round(self.ledger.cost, 4) if self.config.price else None,
            "best": finalists[0]["best"] if finalists else _best(ranked),
            "running": [_running(e) for e in entries if e.state == "running"],
            "disk_bytes": self._disk(),
            "images_per_sec": round(sum(_speed(e) for e in entries if e.state == "running"), 1),
            "failures": [{"trial": e.number, **vars(failure)} for e in entries for failure in e.failures],
            "leaderboard": [best_row(entry) for entry in ranked[:_LEADERS]],
            **self.extra,
        }


def best_row(entry: SweepTrial) -> dict[str, Any]:
    """One row of the leaderboard: a trial at its best tick, and how it ended."""
    best, last = entry.best, entry.records[-1] if entry.records else None
    stable = best and last and best.fid and last.fid
    return {
        "trial": entry.number,
        "state": entry.state,
        "fid": best.fid if best else None,
        "balance": best.to_dict()["balance"] if best else None,
        "auc": best.to_dict()["auc"] if best else None,
        "kimg": best.kimg if best else None,
        "last_kimg": last.kimg if last else 0,
        "verdict": last.verdict if last else "",
        "stability": last.fid / best.fid if stable and best and last and best.fid and last.fid else None,
        "params": entry.params,
        "cause": entry.cause,
    }


def _best(ranked: list[SweepTrial]) -> dict[str, Any] | None:
    row = best_row(ranked[0]) if ranked else {"fid": None}
    return None if row["fid"] is None else {k: row[k] for k in ("trial", "fid", "balance", "kimg", "params")}


def _running(entry: SweepTrial) -> dict[str, Any]:
    row = best_row(entry)
    return {key: row[key] for key in ("trial", "fid", "balance", "last_kimg", "verdict")}


def _speed(entry: SweepTrial) -> float:
    return entry.records[-1].images_per_sec if entry.records else 0.0
