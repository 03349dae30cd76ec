"""The progress of a sweep, from its growing event log: best fid, running and ended trials, work so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.reporting.history import STATE_OF_STATUS
from pipeline.storage.readable import finite
from pipeline.tracking.event_log import read_events

REMEMBERED_ENDS = 5
"""Number of trials in `SweepProgress.last_ended`."""


@dataclass
class TrialProgress:
    """The progress of one trial.

    Attributes:
        number: Optuna's number of the trial.
        kimg, balance, auc, verdict: of its last tick.
        fid: its best so far; None if it has none.
        seconds: time spent on training and measuring.
        ended: complete, pruned or failed; empty while it runs.
        cause: why it ended early.
    """

    number: int
    kimg: int = 0
    fid: float | None = None
    balance: float | None = None
    auc: float | None = None
    verdict: str = ""
    seconds: float = 0.0
    ended: str = ""
    cause: str = ""


class SweepProgress:
    """The progress of a sweep; `update` reads what was added to the event log since the last call.

    Attributes:
        best_fids: the sweep's best fid after each measurement, oldest first.
        trials: every trial that has started, by number.
        last_ended: the trials that ended last, oldest first.
    """

    def __init__(self, event_log: Path) -> None:
        self._path, self._offset = event_log, 0
        self.best_fids: list[float] = []
        self.trials: dict[int, TrialProgress] = {}
        self.last_ended: deque[TrialProgress] = deque(maxlen=REMEMBERED_ENDS)

    def update(self) -> None:
        """Read the new events; an event log that is missing or cannot be read counts as unchanged."""
        try:
            for end, event in read_events(self._path, self._offset):
                self._offset = end
                if event is not None:
                    self._add(event)
        except OSError:
            return

    @property
    def running(self) -> list[TrialProgress]:
        """The trials that have started and not ended, in order of their numbers."""
        return [self.trials[number] for number in sorted(self.trials) if not self.trials[number].ended]

    @property
    def kimg(self) -> int:
        """Thousands of real images shown, by all trials together."""
        return sum(trial.kimg for trial in self.trials.values())

    @property
    def seconds(self) -> float:
        """Seconds spent on training and measuring, by all trials together."""
        return sum(trial.seconds for trial in self.trials.values())

    def _add(self, event: Mapping[str, Any]) -> None:
        kind, number = event["event"], event.get("trial")
        if kind not in ("start", "record", "end") or not isinstance(number, int):
            return
        trial = self.trials.setdefault(number, TrialProgress(number))
        if kind == "start":
            trial.ended = ""  # a resumed sweep continues its interrupted trials
        elif kind == "record":
            self._add_record(trial, event.get("record") or {})
        else:
            trial.ended = STATE_OF_STATUS.get(str(event.get("status")), "ended")
            trial.cause = str(event.get("cause", ""))
            self.last_ended.append(trial)

    def _add_record(self, trial: TrialProgress, record: Mapping[str, Any]) -> None:
        trial.kimg, trial.verdict = int(record.get("kimg") or 0), str(record.get("verdict") or "")
        trial.balance, trial.auc = finite(record.get("balance")), finite(record.get("auc"))
        trial.seconds = (finite(record.get("train_seconds")) or 0) + (finite(record.get("eval_seconds")) or 0)
        fid = finite(record.get("fid"))
        if fid is not None:
            trial.fid = fid if trial.fid is None else min(trial.fid, fid)
            self.best_fids.append(min(fid, self.best_fids[-1]) if self.best_fids else fid)
