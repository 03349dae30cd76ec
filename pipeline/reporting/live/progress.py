"""The progress of a sweep, from its growing event log: best fid, running and ended trials, work so far."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.records import TrialRecord
from pipeline.reporting.history import STATE_OF_STATUS
from pipeline.storage.readable import finite
from pipeline.tracking.event_log import Event, read_events


@dataclass
class TrialProgress:
    """The progress of one trial. ended: complete, pruned or failed; empty while it runs."""

    number: int
    last: TrialRecord | None = None
    ended: str = ""
    cause: str = ""

    @property
    def kimg(self) -> int:
        return self.last.kimg if self.last else 0

    @property
    def verdict(self) -> str:
        return self.last.verdict if self.last else ""

    @property
    def best_fid(self) -> float | None:
        return self.last.best_fid if self.last else None


class SweepProgress:
    """The progress of a sweep; `update` reads what was added to the event log since the last call.

    best_fids: the best fid after each measurement. trials: by number. last_ended: at most five, the last one
    at the end.
    """

    def __init__(self, event_log: Path) -> None:
        self._path, self._offset = event_log, 0
        self.best_fids: list[float] = []
        self.trials: dict[int, TrialProgress] = {}
        self.last_ended: deque[TrialProgress] = deque(maxlen=5)

    def update(self) -> None:
        """Read the new events; an event log that is missing or cannot be read counts as unchanged."""
        with suppress(OSError):
            for end, event in read_events(self._path, self._offset):
                self._offset = end
                if event is not None and event["event"] in ("start", "record", "end"):
                    self._add(event)

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
        last = [trial.last for trial in self.trials.values() if trial.last]
        return sum(finite(record.train_seconds + record.eval_seconds) or 0.0 for record in last)

    def _add(self, event: Event) -> None:
        number = event["trial"]
        assert number is not None
        trial = self.trials.setdefault(number, TrialProgress(number))
        if event["event"] == "start":
            trial.ended = ""  # a resumed sweep continues its interrupted trials
            with suppress(ValueError):
                self.last_ended.remove(trial)
        elif event["event"] == "end":
            trial.ended = STATE_OF_STATUS.get(event["status"], "ended")
            trial.cause = event.get("cause", "")
            self.last_ended.append(trial)
        else:
            with suppress(ValueError):  # not a record of this version
                trial.last = TrialRecord.from_dict(dict(event["record"]))
                if trial.last.fid is not None:
                    self.best_fids.append(min([trial.last.fid, *self.best_fids[-1:]]))
