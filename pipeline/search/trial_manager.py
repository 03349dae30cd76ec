"""Every trial of a sweep, from its ask to its end: told to Optuna and to the listeners exactly once.

Owns: `Entry`, `Ledger`. Refuses: Ray.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.config import SweepConfig, SweepPaths
from pipeline.records import TrialRecord, objective_of
from pipeline.search import budgets
from pipeline.search.space.definition import Space
from pipeline.search.study import make_sampler, suggest_params
from pipeline.training.balance import ONE_SIDED, hopeless
from pipeline.training.checkpoint import Failure, append_failure, read_failures, read_records

log = logging.getLogger(__name__)

STATES = ("running", "complete", "pruned", "failed")
_OPTUNA_STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass
class SweepTrial:
    """One trial as the sweep knows it."""

    number: int
    params: dict[str, Any]
    state: str = "running"
    cause: str = ""
    records: list[TrialRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    heard: int = 0  # reports in this process, repetitions too
    suspicion: str = ""  # why its worker is being ended

    @property
    def best(self) -> TrialRecord | None:
        """The record with the lowest fid; records without one never win."""
        measured = [record for record in self.records if record.fid is not None]
        return min(measured, key=lambda record: record.fid or 0.0, default=None)


@dataclass
class _Totals:
    """Sums over all trials, kept as they go: asked for at every turn of Ray's loop."""

    hours: float = 0.0
    failures: int = 0
    best_fid: float | None = None

    def add(self, record: TrialRecord, before: Sequence[TrialRecord]) -> None:
        """Count a record of a trial; its seconds are those since the trial began, so the last one's go."""
        last = before[-1].train_seconds + before[-1].eval_seconds if before else 0.0
        self.hours += (record.train_seconds + record.eval_seconds - last) / 3600
        if record.fid is not None:
            self.best_fid = record.fid if self.best_fid is None else min(self.best_fid, record.fid)


class SweepCallback(Protocol):
    """Who wants to hear of trials as they go; called in the driver, so it returns at once."""

    def on_start(self, entry: SweepTrial) -> None: ...

    def on_record(self, entry: SweepTrial, record: TrialRecord) -> None: ...

    def on_failure(self, entry: SweepTrial, failure: Failure) -> None: ...

    def on_end(self, entry: SweepTrial) -> None: ...


class TrialManager:
    """The study of one sweep. Not thread-safe: Ray's driver loop is its only caller.

    Args:
        study: opened with `open_study`.
        space: what is searched.
        plan: limits of the search.
        paths: the sweep's folder, for the records of trials begun earlier.
        listeners: told of every start, record and end; of those before this process too.
        spent_sec: search time used by earlier processes.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        plan: SweepConfig,
        paths: SweepPaths,
        listeners: Sequence[SweepCallback] = (),
        spent_sec: float = 0.0,
    ) -> None:
        self.study, self.space, self.plan = study, space, plan
        self.listeners, self.paths = listeners, paths
        self.entries: dict[int, SweepTrial] = {}
        self.reason = ""  # why the search ends before its last trial
        self.stopped_by = ""  # the bound that was met: a field of SweepConfig
        self.interrupted = False  # then running trials stay RUNNING, for a resume
        self.gpus_per_trial = 0.0  # set once the cluster is known
        self.before_end: Callable[[Trial, SweepTrial], None] = lambda trial, entry: (
            None
        )  # the last that it takes
        self._tally = _Totals()
        self._full_kimg = space.config({}).kimg
        self._rates = budgets.prices(plan.price)
        self._trials: dict[int, Trial] = {}
        self._readopted: list[int] = []
        self._spent, self._begun = spent_sec, time.monotonic()
        self._ended: float | None = None
        for frozen in study.get_trials(deepcopy=False):
            if frozen.state in _OPTUNA_STATES:
                self._recall(frozen, paths.trial(frozen.number))

    @property
    def seconds(self) -> float:
        """Search time so far, this process and those before it."""
        return self._spent + (self._ended or time.monotonic()) - self._begun

    @property
    def gpu_hours(self) -> float:
        """GPU hours of all trials so far, by their shares."""
        return self._tally.hours * self.gpus_per_trial

    @property
    def cost(self) -> float:
        """What all trials so far cost, by their shares and the prices."""
        share = self.plan.cpus_per_trial, self.gpus_per_trial
        return self._tally.hours * budgets.hourly_price(self._rates, *share)

    def ask(self) -> SweepTrial | None:
        """The next trial to run, or None where the search asks for no more."""
        if self._readopted:
            return self.entries[self._readopted.pop(0)]
        if self.interrupted or self.over() or len(self.entries) >= self.plan.trials:
            return None
        number = len(self.study.get_trials(deepcopy=False, states=tuple(_OPTUNA_STATES)))
        self.study.sampler = make_sampler(self.plan.sampler, self.plan.seed, number)
        trial = self.study.ask()
        params = suggest_params(self.space, trial)
        # What a process wrote whose asking never reached the study (a full disk) is of another point.
        shutil.rmtree(self.paths.trial(trial.number), ignore_errors=True)
        entry = SweepTrial(trial.number, params)
        self.entries[entry.number], self._trials[entry.number] = entry, trial
        self._tell_all("on_start", entry)
        return entry

    def report(self, record: TrialRecord) -> bool:
        """Take in a record; True if its trial must stop now (it has been told then)."""
        entry = self.entries[record.trial]
        if entry.state != "running":
            return True
        entry.heard += 1
        trial = self._trials[record.trial]
        if not entry.records or record.kimg > entry.records[-1].kimg:
            self._tally.add(record, entry.records)
            entry.records.append(record)
            trial.report(record.objective, step=record.kimg)
            self._tell_all("on_record", entry, record)
        elif record.kimg not in self.study._storage.get_trial(trial._trial_id).intermediate_values:
            trial.report(record.objective, step=record.kimg)
        if record.verdict == "diverged":
            return self._end(entry, "pruned", "diverged: a loss or a score is not finite")
        if self.plan.pruner != "none" and hopeless(entry.records):
            return self._end(entry, "pruned", f"hopeless: {record.verdict} and the fid stands still")
        if record.kimg < self._full_kimg and trial.should_prune():
            return self._end(entry, "pruned", f"pruned by {self.plan.pruner} at {record.kimg} kimg")
        return False

    def note(self, number: int, kind: str, text: str) -> None:
        """Something went wrong with a trial, which may go on: kept in its folder and told to the listeners.

        kind: one of `pipeline.training.checkpoint.FAILURES`.
        """
        entry = self.entries[number]
        kimg = entry.records[-1].kimg if entry.records else 0
        failure = Failure(len(entry.failures), kind, " ".join(text.split())[:500], kimg)
        entry.failures.append(failure)
        append_failure(self.paths.trial(number), failure)
        log.info(f"trial {number}: {failure}")
        self._tell_all("on_failure", entry, failure)

    def suspect(self, number: int, text: str) -> None:
        """The worker of a trial is about to be ended because it hangs: that will be its failure's cause."""
        self.entries[number].suspicion = text

    def stumble(self, number: int, kind: str, text: str) -> None:
        """The worker of a trial failed; Ray may take the trial up again."""
        entry = self.entries[number]
        if entry.suspicion:
            kind, text, entry.suspicion = "hang", entry.suspicion, ""
        self.note(number, kind, text)

    def finish(self, number: int, error: str = "") -> None:
        """A trial has ended by itself: COMPLETE, or FAIL with the error. Told trials stay as told."""
        entry = self.entries[number]
        if entry.state != "running" or self.interrupted:
            return
        if error:
            self._end(entry, "failed", error)
        elif self.reason:
            self._end(entry, "pruned", f"stopped: {self.reason}")
        elif not entry.records:
            self._end(entry, "failed", "ended without a report")
        else:
            self._end(entry, "complete", "")

    def over(self) -> bool:
        """Whether a bound is met; `reason` says which, for people, and `stopped_by` for programs."""
        if not self.reason:
            tally = self._tally
            use = budgets.Usage(self.seconds, self.gpu_hours, self.cost, tally.failures, tally.best_fid)
            met = budgets.budget_reached(self.plan, use)
            if met is not None:
                self.reason, self.stopped_by = met.reason, met.by
        return bool(self.reason)

    def close(self) -> None:
        """Stop the clock, and tell the trials that a spent budget left running.

        What a trial recorded while Ray was ending it counts as well.
        """
        self._ended = time.monotonic()
        for entry in self.entries.values():
            if entry.state == "running" and not self.interrupted:
                for record in read_records(self.paths.trial(entry.number)):
                    self.report(record)
        for entry in list(self.entries.values()):
            self.finish(entry.number)

    def replay(self) -> None:
        """Tell the listeners of all that earlier processes did; they know what they have heard."""
        for entry in self.entries.values():
            self._tell_all("on_start", entry)
            for record in entry.records:
                self._tell_all("on_record", entry, record)
            for failure in entry.failures:
                self._tell_all("on_failure", entry, failure)
            if entry.state != "running":
                self._tell_all("on_end", entry)
        if self.entries:
            begun = len(self._readopted)
            progress = f"{len(self.entries) - begun} of {self.plan.trials} trials over, {begun} in progress"
            log.info(f"going on with what is there: {progress}")

    def _recall(self, frozen: FrozenTrial, folder: Path) -> None:
        state = _OPTUNA_STATES[frozen.state]
        cause = str(frozen.user_attrs.get("cause", ""))
        entry = SweepTrial(frozen.number, dict(frozen.params), state, cause, failures=read_failures(folder))
        told = frozen.intermediate_values
        entry.records = [r for r in read_records(folder) if r.kimg in told or state != "running"]
        self.entries[frozen.number] = entry
        self._tally.failures += state == "failed"
        for index, record in enumerate(entry.records):
            self._tally.add(record, entry.records[:index])
        if state == "running":
            self.study.sampler = make_sampler(self.plan.sampler, self.plan.seed, frozen.number)
            trial = Trial(self.study, frozen._trial_id)
            entry.params = suggest_params(
                self.space, trial
            )  # a kill may have come in the middle of the first draw
            self._trials[frozen.number] = trial
            self._readopted.append(frozen.number)

    def _end(self, entry: SweepTrial, state: str, cause: str) -> bool:
        trial = self._trials.pop(entry.number)
        entry.state, entry.cause = state, cause
        self._tally.failures += state == "failed"
        best = entry.best
        if best is not None:
            # For the sampler alone; can be set only once, so not before the end.
            trial.set_constraint("balance", ONE_SIDED - best.balance)
            trial.set_user_attr("best_kimg", best.kimg)
            trial.set_user_attr("balance", best.balance)
        if entry.records:
            trial.set_user_attr("verdict", entry.records[-1].verdict)
        if cause:
            trial.set_user_attr("cause", cause)
        self.before_end(trial, entry)
        if state == "complete":
            self.study.tell(trial, entry.records[-1].objective)
        else:
            self.study.tell(trial, state=TrialState.FAIL if state == "failed" else TrialState.PRUNED)
        self._tell_all("on_end", entry)
        return True

    def _tell_all(self, event: str, *args: Any) -> None:
        for listener in self.listeners:
            getattr(listener, event)(*args)


def rank_trials(entries: Iterable[SweepTrial]) -> list[SweepTrial]:
    """Entries by their best fid, lowest first; those without one last, by number."""
    return sorted(entries, key=lambda e: (objective_of(e.best.fid if e.best else None), e.number))
