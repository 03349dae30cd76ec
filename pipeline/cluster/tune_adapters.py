"""Ray's view of a ledger: its Searcher, TrialScheduler, Stopper and Callback.

Owns: the translation, and the ending of workers that are silent. Refuses: any decision of its own.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback, Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from pipeline.cluster.preemption import PREEMPTED
from pipeline.cluster.worker_log import log_lines
from pipeline.search.hang_watch import HangWatch
from pipeline.search.trial_manager import TrialManager

log = logging.getLogger(__name__)

_MEMORY = ("OutOfMemoryError", "out of memory", "MemoryError", "running low on memory")
"""What torch, Python and Ray's memory monitor write where there was too little of it."""

NODE_GONE = "machine gone"
"""The kind of an end that is no failure: the trial left a machine that is about to be taken away."""


class StudySearcher(Searcher):  # type: ignore[misc]
    """Ray's Searcher over a ledger: hands out (number, parameters) and notes the ends."""

    def __init__(self, ledger: TrialManager) -> None:
        super().__init__(metric="objective", mode="min")
        self._ledger = ledger
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        entry = self._ledger.ask()
        if entry is None:
            return Searcher.FINISHED  # type: ignore[no-any-return]
        self._numbers[trial_id] = entry.number
        return {"number": entry.number, "params": entry.params}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: Ray skips this call for the report that stops a trial; the scheduler reports."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self._numbers.pop(trial_id, None)
        if number is not None:
            failures = self._ledger.entries[number].failures
            cause = str(failures[-1]) if failures else "the worker died or raised"
            self._ledger.finish(number, cause if error else "")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the only memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles its configuration to disk; no study, no database URL goes there


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Ray's TrialScheduler over a ledger: every report goes to the study, which says when to stop."""

    def __init__(self, ledger: TrialManager) -> None:
        super().__init__()
        self._ledger = ledger

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = trial.config["number"]
        failure = result.get("failure")
        if failure:
            self._ledger.finish(number, failure)
            return TrialScheduler.STOP  # type: ignore[no-any-return]
        if "record" not in result:  # Ray repeats the last result when a trial returns
            return TrialScheduler.CONTINUE  # type: ignore[no-any-return]
        for event in result.get("events", ()):
            if event.kind.is_failure:
                self._ledger.note(number, event.kind.value, event.text)
            else:
                log.info("trial %d: %s", number, event.text)
        log_lines(number, result.get("lines", []))
        stop = self._ledger.report(result["record"])
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE  # type: ignore[no-any-return]

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Ray calls this at every failure, not only at the last: the searcher hears of that one."""
        kind, text = failure_cause(trial.error_file)
        if kind != NODE_GONE:
            self._ledger.stumble(trial.config["number"], kind, text)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudyStopper(Stopper):  # type: ignore[misc]
    """Ends the whole search when its budget is spent or it was told to."""

    def __init__(self, ledger: TrialManager) -> None:
        self._ledger = ledger

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._ledger.interrupted or self._ledger.over()

    def __getstate__(self) -> dict[str, Any]:
        return {}


class HangCallback(Callback):  # type: ignore[misc]
    """Ends the workers of trials that are silent for too long."""

    def __init__(self, ledger: TrialManager) -> None:
        self._ledger = ledger
        self._watch = HangWatch(ledger)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if not self._watch.due():
            return
        at_work = {t.config["number"]: t.temporary_state.ray_actor for t in trials if t.status == t.RUNNING}
        for number in self._watch.silent(at_work):
            if at_work[number] is not None:
                ray.kill(at_work[number])  # Ray takes it for a failure of the trial, and up again

    def __getstate__(self) -> dict[str, Any]:
        return {}


def failure_cause(error_file: str | None) -> tuple[str, str]:
    """Kind and text of a trial's last failure, from the file that Ray writes for the driver."""
    try:
        text = Path(error_file or "").read_text(errors="replace").rpartition("Failure # ")[2]
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
