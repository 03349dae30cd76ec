"""Which running trials have been silent for so long that their worker must hang.

Owns: the bound. Refuses: ending a worker (Ray's door does).

A trial may take `PATIENCE` times as long to its next report as its longest tick so far, and ten minutes at
least; before its first tick the longest of any trial counts, and two hours before there is any. The bound can
be given instead (`hang_after_sec`); a worker has two minutes to begin with in any case.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable

from pipeline.records import TrialRecord
from pipeline.search.trial_manager import SweepTrial, TrialManager

PATIENCE = 20.0
LEAST_SEC = 600.0
FIRST_SEC = 7200.0
STARTING_SEC = 120.0
"""For the start of a process, its imports and its images; a loaded machine takes its time."""
_PERIOD_SEC = 1.0


class HangWatch:
    """Looks at the trials of a ledger; `clock` gives seconds."""

    def __init__(self, ledger: TrialManager, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger, self._clock = ledger, clock
        # By trial: its reports when its worker began, its reports since, and when there was news.
        self._since: dict[int, tuple[int, int, float]] = {}
        self._looked = clock()

    def due(self) -> bool:
        """Whether a look is worth it: once a second."""
        now = self._clock()
        if now - self._looked < _PERIOD_SEC:
            return False
        self._looked = now
        return True

    def silent(self, at_work: Iterable[int]) -> list[int]:
        """Those of the trials at work whose worker is to be ended; the ledger is told why.

        One that waits for a machine is not at work: its time begins anew when it is.
        """
        now, found = self._clock(), []
        before, self._since = self._since, {}
        for number in at_work:
            reports = self._ledger.entries[number].heard
            first, known, since = before.get(number, (reports, reports, now))
            since = since if known == reports else now
            bound = hang_bound_sec(self._ledger.entries, number, self._ledger.plan.hang_after_sec)
            bound = max(bound, STARTING_SEC) if reports == first else bound
            if now - since > bound:
                text = f"no report in {now - since:.0f} s (its bound is {bound:.0f} s)"
                self._ledger.suspect(number, text)
                found.append(number)
                first, since = reports, now
            self._since[number] = (first, reports, since)
        return found


def hang_bound_sec(entries: dict[int, SweepTrial], number: int, given: float = 0.0) -> float:
    """How long trial `number` may be silent, in seconds."""
    if given:
        return given
    own = longest_tick_sec(entries[number].records)
    longest_sec = own or max((longest_tick_sec(entry.records) for entry in entries.values()), default=0.0)
    return max(LEAST_SEC, PATIENCE * longest_sec) if longest_sec else FIRST_SEC


def longest_tick_sec(records: list[TrialRecord]) -> float:
    """Seconds of the longest tick, training and measuring; 0 where there is none."""
    ends = [0.0, *(record.train_seconds + record.eval_seconds for record in records)]
    return max((after - before for before, after in itertools.pairwise(ends)), default=0.0)
