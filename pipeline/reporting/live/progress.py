"""What a sweep's spool tells as it grows: the best fid so far, who runs, who ended, what it has cost.

Owns: `Pulse`, which reads on from where it stopped. Refuses: drawing; files other than the spool.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.reporting.history import finite
from pipeline.tracking.event_log import read_events

LAST = 5
"""Ended trials that are remembered by their end."""

_STATES = {"FINISHED": "complete", "KILLED": "pruned", "FAILED": "failed"}


@dataclass
class TrialProgress:
    """Where one trial stands. fid: its best; balance, auc, verdict: of its last tick; seconds: its work."""

    trial: int
    kimg: int = 0
    fid: float | None = None
    balance: float | None = None
    auc: float | None = None
    verdict: str = ""
    seconds: float = 0.0
    ended: str = ""
    cause: str = ""


class SweepProgress:
    """A sweep seen through its spool. `look` takes in what is new; all else is what was seen so far.

    bests: the sweep's best fid after each measurement, oldest first.
    """

    def __init__(self, spool: Path) -> None:
        self._path, self._offset = spool, 0
        self.bests: list[float] = []
        self.beats: dict[int, TrialProgress] = {}
        self.last: deque[TrialProgress] = deque(maxlen=LAST)

    def look(self) -> None:
        """Read what was added since; a spool that is not there yet, or away, is no news."""
        try:
            for end, event in read_events(self._path, self._offset):
                self._offset = end
                if event is not None:
                    self._take(event)
        except OSError:
            return

    @property
    def running(self) -> list[TrialProgress]:
        """The trials that have begun and not ended, by number."""
        return [self.beats[number] for number in sorted(self.beats) if not self.beats[number].ended]

    @property
    def kimg(self) -> int:
        """Thousands of real images shown, by all trials together."""
        return sum(beat.kimg for beat in self.beats.values())

    @property
    def seconds(self) -> float:
        """Seconds of work of all trials together."""
        return sum(beat.seconds for beat in self.beats.values())

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, number = event["event"], event.get("trial")
        if kind not in ("start", "record", "end") or not isinstance(number, int):
            return
        beat = self.beats.setdefault(number, TrialProgress(number))
        if kind == "start":
            beat.ended = ""  # a resumed sweep takes up what had been interrupted
        elif kind == "record":
            self._record(beat, event.get("record") or {})
        else:
            beat.ended, beat.cause = (
                _STATES.get(str(event.get("status")), "ended"),
                str(event.get("cause", "")),
            )
            self.last.append(beat)

    def _record(self, beat: TrialProgress, record: Mapping[str, Any]) -> None:
        beat.kimg, beat.verdict = int(record.get("kimg") or 0), str(record.get("verdict") or "")
        beat.balance, beat.auc = finite(record.get("balance")), finite(record.get("auc"))
        beat.seconds = (finite(record.get("train_seconds")) or 0) + (finite(record.get("eval_seconds")) or 0)
        fid = finite(record.get("fid"))
        if fid is not None:
            beat.fid = fid if beat.fid is None else min(beat.fid, fid)
            self.bests.append(min(fid, self.bests[-1]) if self.bests else fid)
