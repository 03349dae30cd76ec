"""Which running trials have not reported for so long that their worker must hang.

A trial may take `MAX_TICKS_SILENT` times its longest tick so far until its next report, and at least ten
minutes. Before its first tick the longest tick of any trial counts, and two hours before there is any.
`hang_after_sec` replaces these bounds. A worker has two minutes for its first report in any case.

Responsible for the bounds; not for ending a worker (`pipeline.cluster.tune_adapters.HangCallback`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping

from pipeline.records import TrialRecord
from pipeline.search.trial_manager import SweepTrial, TrialManager

MAX_TICKS_SILENT = 20.0
_MIN_BOUND_SEC = 600.0
_FIRST_TICK_BOUND_SEC = 7200.0
_START_BOUND_SEC = 120.0  # for the start of a process, its imports and its images, on a loaded machine
_PERIOD_SEC = 1.0


class HangWatch:
    """Checks the trials of a manager; `clock` gives seconds."""

    def __init__(self, manager: TrialManager, clock: Callable[[], float] = time.monotonic) -> None:
        self._manager, self._clock = manager, clock
        # By trial: its reports when its worker began, its reports now, and when the last one came.
        self._last_report: dict[int, tuple[int, int, float]] = {}
        self._checked = clock()

    def due(self) -> bool:
        """Whether a check is due: once a second."""
        now = self._clock()
        if now - self._checked < _PERIOD_SEC:
            return False
        self._checked = now
        return True

    def hung(self, active: Iterable[int]) -> list[int]:
        """The active trials whose worker is to be ended; they are marked as hung in the manager.

        active: trials that have a worker. One that waits for a machine is not active: its time starts again
        when it gets one.
        """
        now, found = self._clock(), []
        before, self._last_report = self._last_report, {}
        for number in active:
            reports = self._manager.trials[number].reports
            first, known, since = before.get(number, (reports, reports, now))
            since = since if known == reports else now
            bound = hang_bound_sec(self._manager.trials, number, self._manager.config.hang_after_sec)
            bound = max(bound, _START_BOUND_SEC) if reports == first else bound
            if now - since > bound:
                reason = f"no report in {now - since:.0f} s (its bound is {bound:.0f} s)"
                self._manager.mark_hung(number, reason)
                found.append(number)
                first, since = reports, now
            self._last_report[number] = (first, reports, since)
        return found


def hang_bound_sec(trials: Mapping[int, SweepTrial], number: int, given: float = 0.0) -> float:
    """How many seconds trial `number` may go without a report; `given` if that is not 0."""
    if given:
        return given
    longest = longest_tick_sec(trials[number].records)
    longest = longest or max((longest_tick_sec(trial.records) for trial in trials.values()), default=0.0)
    return max(_MIN_BOUND_SEC, MAX_TICKS_SILENT * longest) if longest else _FIRST_TICK_BOUND_SEC


def longest_tick_sec(records: list[TrialRecord]) -> float:
    """Seconds of the longest tick, training and evaluation; 0 where there is none."""
    ends = [0.0, *(record.train_seconds + record.eval_seconds for record in records)]
    return max((after - before for before, after in itertools.pairwise(ends)), default=0.0)
