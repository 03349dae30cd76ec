"""What all peers share: the objective, trials that go on from a pause, and a random state of their own."""

from __future__ import annotations

import random
import sys
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.records import PENALTY
from replays.clock import Job, Report

Params = Mapping[str, Any]


class Objective:
    """The best fid of each trial so far: lower is better, `PENALTY` where there never was one."""

    def __init__(self) -> None:
        self._best: dict[int, float] = {}

    def add(self, report: Report) -> float:
        """Take in a tick; the trial's objective after it."""
        best = self.of(report.job.trial)
        self._best[report.job.trial] = best if report.fid is None else min(best, report.fid)
        return self._best[report.job.trial]

    def of(self, trial: int) -> float:
        return self._best.get(trial, PENALTY)


class OwnRandomState:
    """The global generators of random, numpy and torch as one peer has them.

    Several packages draw from them. With a state of its own, a peer depends on its seed alone, and not on
    what else runs in the process.
    """

    def __init__(self, seed: int) -> None:
        before = _states()
        random.seed(seed)
        np.random.seed(seed)
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(seed)
        self._states = _states()
        _restore(before)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        before = _states()
        _restore(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _restore(before)


def _states() -> tuple[Any, ...]:
    torch = sys.modules.get("torch")
    return random.getstate(), np.random.get_state(), torch.get_rng_state() if torch else None


def _restore(states: tuple[Any, ...]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    if states[2] is not None:
        sys.modules["torch"].set_rng_state(states[2])


@dataclass(frozen=True)
class Request:
    """What a peer wants trained: configuration `key` to `budget` kimg. ticket: the peer's own name for it."""

    key: Hashable
    params: Params
    budget: float
    ticket: Any


class BudgetSearch(ABC):
    """A peer that gives a configuration a budget and hears one value when it is used up.

    A configuration that gets a larger budget is trained on from where it was paused: no tick is trained
    twice. One that has diverged is not trained on, and one that has had the budget is not trained again: what
    is known is told at once. A configuration that is asked for twice at the same time is trained twice.
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._curves: dict[int, dict[int, float]] = {}  # number -> kimg -> objective
        self._diverged: set[int] = set()
        self._running: dict[int, Request] = {}

    @abstractmethod
    def next_request(self) -> Request | None:
        """The next request; None: nothing until another one has been answered."""

    @abstractmethod
    def tell(self, ticket: Any, value: float) -> None:
        """A request has been answered."""

    def ask(self) -> Job | None:
        while (request := self.next_request()) is not None:
            number, until = self._number(request.key), kimg_of(request)
            curve = self._curves.setdefault(number, {0: PENALTY})
            start = max(curve)
            if number in self._diverged or until <= start:
                self.tell(request.ticket, curve[min(until, start)])
                continue
            self._running[number] = request
            return Job(number, request.params, until, start)
        return None

    def _number(self, key: Hashable) -> int:
        number = self._numbers.setdefault(key, len(self._numbers))
        return self._number((key, "again")) if number in self._running else number

    def report(self, report: Report) -> bool:
        curve = self._curves[report.job.trial]
        best = curve[max(curve)]
        curve[report.kimg] = best if report.fid is None else min(best, report.fid)
        if report.fid is None:
            self._diverged.add(report.job.trial)
        return False

    def done(self, job: Job) -> None:
        curve = self._curves[job.trial]
        self.tell(self._running.pop(job.trial).ticket, curve[max(curve)])


def kimg_of(request: Request) -> int:
    """The budget in whole ticks."""
    return max(1, round(request.budget))
