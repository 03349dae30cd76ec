"""Syne Tune's schedulers, driven as its `Tuner` drives them.

MOBSTER and Hyper-Tune are not in Syne Tune from 0.14 on. They come from 0.13.0 in a folder of its own
(`requirements-peers.txt`), beside the version that is installed.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.search.space.definition import Space
from replays.clock import Job, Report
from replays.peers.base import Objective, OwnRandomState
from replays.peers.spaces import active_params, to_syne_tune

METRIC, KIMG = "fid", "kimg"
OLD = "0.13.0"
OLD_FOLDER = Path(
    os.environ.get("GANSWEEP_SYNE_TUNE_OLD", Path(__file__).parents[3] / "build/peers" / f"syne-tune-{OLD}")
)


class SyneTuneSearch:
    """A `replays.clock.Search` of a class of `syne_tune.optimizer.baselines` with its defaults.

    Its spaces have no conditions: every parameter is drawn, and dropped where its condition does not hold.
    """

    fails = False
    """Whether a trial that never had a fid is told as failed, and not by the objective."""

    def __init__(self, space: Space, seed: int, workers: int, full_kimg: int, method: str) -> None:
        logging.getLogger("syne_tune").setLevel(logging.ERROR)
        self._random = OwnRandomState(seed)
        self._space, self._full = space, full_kimg
        self._objective = Objective()
        self._trials: dict[int, Any] = {}
        self._results: dict[int, dict[str, Any]] = {}
        self._left: set[int] = set()  # stopped or paused: the scheduler knows
        with self._inside():
            self._baselines = import_module("syne_tune.optimizer.baselines")
            self._trial_class = import_module("syne_tune.backend.trial_status").Trial
            self._scheduler = self._make(getattr(self._baselines, method), to_syne_tune(space), seed)

    def _make(self, method: Any, space: dict[str, Any], seed: int) -> Any:
        halving = "AsynchronousSuccessiveHalving" in {base.__name__ for base in method.__mro__}
        fidelity = {"time_attr": KIMG, "max_t": self._full} if halving else {}
        return method(space, metric=METRIC, do_minimize=True, random_seed=seed, **fidelity)

    def _suggest(self, number: int) -> Any:
        return self._scheduler.suggest()

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with self._random():
            yield

    def ask(self) -> Job | None:
        with self._inside():
            number = len(self._trials)
            suggestion = self._suggest(number)
            if suggestion is None:
                raise RuntimeError("the scheduler suggests nothing: its space is exhausted")
            if not suggestion.spawn_new_trial_id:
                number = suggestion.checkpoint_trial_id
                self._left.discard(number)
                return Job(number, self._params(number), self._full, self._results[number][KIMG])
            trial = self._trial_class(number, suggestion.config, datetime.now())
            self._trials[number] = trial
            self._scheduler.on_trial_add(trial)
        return Job(number, self._params(number), self._full)

    def _params(self, number: int) -> dict[str, Any]:
        return active_params(self._space, self._trials[number].config)

    def report(self, report: Report) -> bool:
        number = report.job.trial
        trial = self._trials[number]
        result = {METRIC: self._objective.add(report), KIMG: report.kimg}
        if self.fails and report.fid is None and number not in self._results:
            return False  # `done` tells it
        self._results[number] = result
        with self._inside():
            decision = self._scheduler.on_trial_result(trial, dict(result))
            if decision == "CONTINUE":
                return False
            self._scheduler.on_trial_remove(trial)
        self._left.add(number)
        return True

    def done(self, job: Job) -> None:
        if job.trial in self._left:
            return
        trial = self._trials[job.trial]
        with self._inside():
            if job.trial in self._results:
                self._scheduler.on_trial_complete(trial, dict(self._results[job.trial]))
            else:
                self._scheduler.on_trial_error(trial)


class OldSyneTuneSearch(SyneTuneSearch):
    """The same with Syne Tune 0.13.0: MOBSTER and Hyper-Tune, with their defaults.

    Their Gaussian process is fitted to the values themselves, and one `PENALTY` would flatten all others: a
    trial that never had a fid is told as failed.
    """

    fails = True

    def _make(self, method: Any, space: dict[str, Any], seed: int) -> Any:
        return method(
            space, metric=METRIC, mode="min", resource_attr=KIMG, max_t=self._full, random_seed=seed
        )

    def _suggest(self, number: int) -> Any:
        return self._scheduler.suggest(trial_id=number)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with self._random(), _old_syne_tune():
            yield


_other: dict[str, ModuleType] = {}


@contextmanager
def _old_syne_tune() -> Iterator[None]:
    """`import syne_tune` means 0.13.0, here and in whatever it imports on the way.

    Raises:
        SystemExit: it is not there.
    """
    if not (OLD_FOLDER / "syne_tune").is_dir():
        raise SystemExit(f"no Syne Tune {OLD}: pip install --no-deps --target {OLD_FOLDER} syne-tune=={OLD}")
    for name, value in {"NAN": np.nan, "Inf": np.inf, "float_": np.float64}.items():
        if not hasattr(np, name):
            setattr(np, name, value)  # numpy 2 has dropped them, 0.13.0 uses them
    installed = _swap(_other)
    sys.path.insert(0, str(OLD_FOLDER))
    try:
        yield
    finally:
        sys.path.remove(str(OLD_FOLDER))
        _other.clear()
        _other.update(_swap(installed))


def _swap(modules: dict[str, ModuleType]) -> dict[str, ModuleType]:
    """Put `modules` in place of the loaded ones of `syne_tune`, which it returns."""
    names = [name for name in sys.modules if name.partition(".")[0] == "syne_tune"]
    taken = {name: sys.modules.pop(name) for name in names}
    sys.modules.update(modules)
    return taken
