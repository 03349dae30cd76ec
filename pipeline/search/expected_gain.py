"""What one more hour of search should bring, estimated from the best fids of the trials that have ended.

No model of the search space, no sampling: how often exchangeable trials improve on the best, scaled by what
the search has done lately. Of N ended trials with a fid and n more in an hour, with the fids on a log scale:

- The j-th trial is the best so far with probability 1/j, so ln(1 + n/N) improvements are expected in the hour
  (B. C. Arnold, N. Balakrishnan, H. N. Nagaraja, Records, 1998).
- What an improvement gains over the one before it is the scale of the lower tail: the mean excess over the
  fourth lowest of the three fids below it (B. M. Hill, Annals of Statistics 3, 1975). Few of them, because
  fids are bounded below: farther up the spacing is wider.
- A sampler that learns does better than exchangeable trials, one that is stuck worse: the scale is averaged
  with the fall of the best fid over the second half of the trials, per improvement expected in it (ln 2), and
  the rate of improvements is that of the second half, with one expected improvement as a prior.

With improvements as a Poisson process and exponential gains, the best fid falls by
1 - (1 + n/N)^(-g / (1 + g)) on average, g the scale. `benchmarks/expected_gain.py` compares that with what
came. An hour of more trials than have ended is extrapolated: the number is then rough, and rather too high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.records import LOWEST_FID
from pipeline.storage.readable import finite
from pipeline.storage.summary_file import ExpectedGain

MIN_TRIALS = 12
"""Ended trials with a fid that an estimate needs: the random ones at the start, and a few more."""

PLATEAU_TRIALS = 20
"""Ended trials with a fid before which no plateau ends a search: the sampler has only begun to learn."""

SEARCH_SECONDS = "search_seconds"
"""User attribute of a trial in the study: seconds of search at its end, over all processes."""

_TAIL = 3
_LASTING = 4, 100  # a plateau must last for a quarter of the trials, but for a hundred at most
_HOUR = 3600.0


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended.

    seconds: of search at its end; None in a sweep of a version that did not keep it. fid: its best; None if
    it has none. work: the seconds that it trained and measured.
    """

    seconds: float | None
    fid: float | None
    work: float = 0.0


class EndedTrials:
    """The trials of a search that have ended, and what one more hour should bring.

    earlier_sec: seconds of search of earlier processes, in which the trials without a second have ended.
    hours: the horizon, for studies of the estimate.
    """

    def __init__(self, earlier_sec: float = 0.0, hours: float = 1.0) -> None:
        self._earlier, self._hours = earlier_sec, hours
        self._trials: list[EndedTrial] = []
        self._estimate: ExpectedGain | None = None
        self._gains: dict[int, float | None] = {}  # by the number of ended trials

    def add(self, seconds: object, fid: float | None, work: float) -> None:
        """Add a trial. seconds: see `EndedTrial`; what is no finite number counts as unknown."""
        self._trials.append(EndedTrial(finite(seconds), fid, work))
        self._estimate = None

    @property
    def one_more_hour(self) -> ExpectedGain:
        """What one more hour should bring; computed once after each end of a trial."""
        if self._estimate is None:
            trials = place_in_time(self._trials, self._earlier)
            self._estimate = replace(expected_gain(trials, self._hours), plateau=self._plateau(trials))
        return self._estimate

    def _plateau(self, trials: Sequence[EndedTrial]) -> float | None:
        """The highest expected gain at the ends of the last quarter of the trials; None with too few trials.

        One estimate alone is often too low by chance, and every one of them could end the search.
        """
        count, (part, most) = len(trials), _LASTING
        if sum(trial.fid is not None for trial in trials) < PLATEAU_TRIALS:
            return None
        gains = []
        for number in range(count - min(count // part, most) + 1, count + 1):
            if number not in self._gains:
                self._gains[number] = expected_gain(trials[:number], self._hours).gain
            gains.append(self._gains[number])
        known = [gain for gain in gains if gain is not None]
        return max(known) if len(known) == len(gains) else None


def place_in_time(trials: Sequence[EndedTrial], earlier_sec: float) -> list[EndedTrial]:
    """The trials in the order of their ends.

    Where the second of an end is unknown, the search is taken as equally busy all the time: trials end in the
    given order, each when its share of the work is done, before the first end that is known and within
    `earlier_sec`. Pauses between processes do not count then either.
    """
    unknown = [trial for trial in trials if trial.seconds is None]
    known = sorted((t for t in trials if t.seconds is not None), key=lambda t: t.seconds or 0.0)
    if not unknown:
        return known
    span = min([earlier_sec, *(trial.seconds or 0.0 for trial in known[:1])])
    done = np.cumsum([max(finite(trial.work) or 0.0, 1e-3) for trial in unknown])
    ends = span * done / done[-1]
    return [*(replace(t, seconds=float(end)) for t, end in zip(unknown, ends, strict=True)), *known]


def expected_gain(trials: Sequence[EndedTrial], hours: float = 1.0) -> ExpectedGain:
    """What `hours` more of search should bring after the last of these trials, in the order of their ends.

    The fields of the result are None with fewer than `MIN_TRIALS` trials that have a fid.
    """
    measured = [trial for trial in trials if finite(trial.fid) is not None]
    count, half = len(measured), len(measured) // 2
    unknown = ExpectedGain(trials=count, needed=MIN_TRIALS)
    if count < MIN_TRIALS:
        return unknown
    begun, now = measured[half - 1].seconds or 0.0, trials[-1].seconds or 0.0
    if now <= begun:
        return unknown
    per_hour = (count - half) * _HOUR / (now - begun)
    logs = np.log(np.maximum([trial.fid or 0.0 for trial in measured], LOWEST_FID))
    scale, rate = _gain_per_improvement(logs), _improvement_rate(logs)
    growth = math.log1p(per_hour * hours / count)
    gain = -math.expm1(-growth * scale / (1 + scale))
    return ExpectedGain(
        trials=count,
        needed=MIN_TRIALS,
        trials_per_hour=round(per_hour, 3),
        gain=round(gain, 6),
        chance=round(-math.expm1(-rate * growth), 4),
        fid=math.exp(logs.min()) * (1 - gain),
    )


def _gain_per_improvement(logs: np.ndarray) -> float:
    """The expected fall of the lowest value by an improvement; see the module."""
    half = len(logs) // 2
    lowest = np.partition(logs, _TAIL)[: _TAIL + 1]
    spacing = float(lowest.max() - np.sort(lowest)[:_TAIL].mean())
    lately = max(float(logs[:half].min() - logs.min()), 0.0) / math.log(len(logs) / half)
    return (spacing + lately) / 2


def _improvement_rate(logs: np.ndarray) -> float:
    """Improvements in the second half over those of exchangeable values, with one expected as a prior."""
    half = len(logs) // 2
    best = np.minimum.accumulate(logs)
    improvements = int(np.count_nonzero(logs[half:] < best[half - 1 : -1]))
    return (improvements + 1) / (math.log(len(logs) / half) + 1)
