"""Virtual time: workers that train what a search asks for, at the speed of the recorded trials.

A search asks for jobs: a trial of some parameters from a tick to another, new or continued from where it was
paused. Nothing is trained; a job's ticks come at the seconds that the table gives them.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from replays.world import Table, Trial

NOTHING = (math.inf, math.inf)


@dataclass(frozen=True)
class Job:
    """Train trial `trial` of these parameters from `start` kimg (0: from nothing) to at most `until` kimg."""

    trial: int
    params: Mapping[str, Any]
    until: int
    start: int = 0


@dataclass(frozen=True)
class Report:
    """A tick of a job. fid: None where it diverged, which is the trial's last tick. seconds: of the trial."""

    job: Job
    kimg: int
    fid: float | None
    balance: float
    verdict: str
    seconds: float


class Search(Protocol):
    """What is replayed: a method with its state. None of it sees the table."""

    def ask(self) -> Job | None:
        """The next job for a free worker; None: nothing until another job has ended."""

    def report(self, report: Report) -> bool:
        """Take in a tick. True: stop (or pause) the trial now."""

    def done(self, job: Job) -> None:
        """The job has ended: at `until`, by a stop, or because it diverged."""


@dataclass
class Trace:
    """What a replay found: after `seconds[i]` the incumbent's expected fid was `truth[i]`.

    The incumbent is the trial with the lowest fid seen so far; its expected fid is that of the same tick
    without noise, so that a lucky measurement is not counted as a good generator.
    trials: (ended at, best fid seen, kimg at the end, expected fid of the best tick) of each job.
    """

    seconds: list[float] = field(default_factory=list)
    truth: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    trials: list[tuple[float, float, int, float]] = field(default_factory=list)

    def at(self, seconds: float) -> float:
        """The incumbent's expected fid at a time; infinite before the first one."""
        place = int(np.searchsorted(self.seconds, seconds, side="right"))
        return self.truth[place - 1] if place else float("inf")


def replay(table: Table, search: Search, workers: int, budget: float, seed: int) -> Trace:
    """Run `search` for `budget` seconds of virtual time on `workers` workers."""
    rng, trace = np.random.default_rng([seed, 77]), Trace()
    trials: dict[int, Trial] = {}
    best: dict[int, tuple[float, float]] = {}  # of each trial: lowest fid seen, expected fid of that tick
    order = itertools.count()
    events: list[tuple[float, int, Job, int]] = []  # when, tie-breaker, job, index of the tick
    idle = workers

    def start(now: float) -> bool:
        job = search.ask()
        if job is None:
            return False
        if job.trial not in trials:
            trials[job.trial] = table.trial(job.params, rng)
        trial = trials[job.trial]
        first = int(np.searchsorted(trial.kimg, job.start, side="right"))
        before = trial.seconds[first - 1] if first else 0.0
        heapq.heappush(events, (now + trial.seconds[first] - before, next(order), job, first))
        return True

    now = 0.0
    while True:
        while idle and now < budget and start(now):
            idle -= 1
        if not events:
            return trace
        now, _, job, index = heapq.heappop(events)
        if now > budget:
            return trace
        trial = trials[job.trial]
        fid = float(trial.fid[index])
        finite = bool(np.isfinite(fid))
        if finite:
            best[job.trial] = min((fid, float(trial.truth[index])), best.get(job.trial, NOTHING))
            if not trace.seen or fid < trace.seen[-1]:
                trace.seconds.append(now)
                trace.seen.append(fid)
                trace.truth.append(float(trial.truth[index]))
        kimg, measured = int(trial.kimg[index]), fid if finite else None
        balance, verdict = float(trial.balance[index]), str(trial.verdict[index])
        report = Report(job, kimg, measured, balance, verdict, float(trial.seconds[index]))
        stop = search.report(report)
        if stop or not finite or kimg >= job.until or index + 1 == len(trial.kimg):
            seen, truth = best.get(job.trial, NOTHING)
            trace.trials.append((now, seen, kimg, truth))
            search.done(job)
            idle += 1
        else:
            step = float(trial.seconds[index + 1] - trial.seconds[index])
            heapq.heappush(events, (now + step, next(order), job, index + 1))
