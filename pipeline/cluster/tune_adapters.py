"""Adapters from Ray Tune to the trial manager: Searcher, TrialScheduler, Stopper and Callback.

They translate, and end workers that hang; every decision is the trial manager's.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback, Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from pipeline.cluster._compat import actor_of
from pipeline.cluster.messages import Suggestion, TrialReport
from pipeline.cluster.preemption import PREEMPTED
from pipeline.search.hang_watch import HangWatch
from pipeline.search.trial_manager import TrialManager

log = logging.getLogger(__name__)

_MEMORY = ("OutOfMemoryError", "out of memory", "MemoryError", "running low on memory")
"""What torch, Python and Ray's memory monitor write into Ray's error file where memory ran out.

A dead worker leaves nothing but that file, so its text is all there is to go by; what a living worker reports
comes as typed events (`pipeline.training.events`).
"""

NODE_GONE = "machine gone"
"""The kind of an end that is no failure: the trial left a machine that is about to be taken away."""


class Unpickled:
    """Has no state for pickle: Ray writes its configuration to disk, and no database URL is to be in it."""

    def __getstate__(self) -> dict[str, object]:
        return {}


class StudySearcher(Unpickled, Searcher):  # type: ignore[misc]
    """Ray's Searcher: suggests the manager's next trial, and tells the manager how trials end.

    Reports come by the scheduler: Ray gives a searcher none that stops its trial.
    """

    def __init__(self, manager: TrialManager) -> None:
        super().__init__(metric="objective", mode="min")
        self._manager = manager
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Suggestion | str | None:
        trial = self._manager.ask()
        if trial is None:
            return Searcher.FINISHED  # type: ignore[no-any-return]
        self._numbers[trial_id] = trial.number
        return Suggestion(number=trial.number, params=trial.params)

    def on_trial_complete(self, trial_id: str, result: object = None, error: bool = False) -> None:
        number = self._numbers.pop(trial_id, None)
        if number is not None:
            failures = self._manager.trials[number].failures
            cause = str(failures[-1]) if failures else "the worker died or raised"
            self._manager.finish(number, cause if error else "")

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the study is the search's only memory."""


class StudyScheduler(Unpickled, FIFOScheduler):  # type: ignore[misc]
    """Ray's TrialScheduler: passes every report to the manager, which decides whether the trial stops."""

    def __init__(self, manager: TrialManager) -> None:
        super().__init__()
        self._manager = manager
        self.error: Exception | None = None  # what Tune raises as a text

    def on_trial_result(self, tune_controller: object, trial: Any, result: TrialReport) -> str:
        try:
            return self._take(trial, result)
        except Exception as error:  # of the database, or of a pruner of the user's own
            self.error = error
            raise

    def _take(self, trial: Any, result: TrialReport) -> str:
        number = trial.config["number"]
        for event in result.get("events", ()):  # by their kind: the text is for people
            if event.kind.is_failure:
                self._manager.record_failure(number, event.kind.value, event.text)
            else:
                log.log(event.kind.level, "trial %d: %s", number, event.text)
        for level, text in result.get("lines", ()):
            log.log(level, "trial %d: %s", number, text)
        if "failure" in result:
            self._manager.finish(number, result["failure"])
            return TrialScheduler.STOP  # type: ignore[no-any-return]
        stop = self._manager.report(result["record"])
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE  # type: ignore[no-any-return]

    def on_trial_error(self, tune_controller: object, trial: Any) -> None:
        """Ray calls this at every failure of a trial; the searcher hears of the last one only."""
        kind, text = failure_cause(trial.error_file)
        if kind != NODE_GONE:
            self._manager.on_worker_failure(trial.config["number"], kind, text)


class StudyStopper(Unpickled, Stopper):  # type: ignore[misc]
    """Ends the whole search when its budget is spent or it is interrupted."""

    def __init__(self, manager: TrialManager) -> None:
        self._manager = manager

    def __call__(self, trial_id: str, result: object) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._manager.interrupted or self._manager.should_stop()


class HangCallback(Unpickled, Callback):  # type: ignore[misc]
    """Ends the workers of trials that are silent for too long."""

    def __init__(self, manager: TrialManager) -> None:
        self._manager = manager
        self._watch = HangWatch(manager)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if not self._watch.due():
            return
        actors = {t.config["number"]: actor_of(t) for t in trials if t.status == t.RUNNING}
        for number in self._watch.hung(actors):
            if actors[number] is not None:
                ray.kill(actors[number])  # a failure of the trial for Ray, which takes it up again


def failure_cause(error_file: str | None) -> tuple[str, str]:
    """Kind and text of a trial's last failure, from the error file that Ray writes for the driver."""
    try:
        text = Path(error_file or "").read_text("utf-8", "replace").rpartition("Failure # ")[2]
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    if not lines:
        return "worker killed", "its process is gone"
    if PREEMPTED in lines[-1]:
        return NODE_GONE, PREEMPTED
    if any(mark in text for mark in _MEMORY):
        return "out of memory", next(line for line in lines if any(mark in line for mark in _MEMORY))
    _, died, detail = lines[-1].partition("Worker exit detail: ")
    if died or any("actor died" in line or "is unavailable" in line for line in lines):
        return "worker killed", detail.partition(" Some common causes")[0] or lines[-1]
    return "exception", lines[-1]
