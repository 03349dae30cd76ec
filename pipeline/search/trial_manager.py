"""Every trial of a sweep from `ask` to its end: `study.tell` and the callbacks hear of each exactly once.

Responsible for what happens to a trial and for when the search stops; not for running trials: Ray's adapters
(`pipeline.cluster.tune_adapters`) call it.

The study is the only memory of the search. A manager opened on a study with trials first hands out those that
are RUNNING, under their own number, and then asks for new ones up to the limit.

Fidelity: Optuna sees the objective, the best fid so far, at every tick (step = kimg). A trial that ran to its
end is COMPLETE with it; one that was stopped is PRUNED, which TPE ranks by how far it came.
NaN policy: an objective is always finite (`pipeline.records`), so the study never loses one.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.config import SweepConfig, SweepPaths
from pipeline.records import TrialRecord, objective_of
from pipeline.search import budgets
from pipeline.search._compat import reopen_trial, reported_steps
from pipeline.search.expected_gain import SEARCH_SECONDS, EndedTrials
from pipeline.search.samplers import make_sampler
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Value
from pipeline.search.study import attach_grid, suggest_params
from pipeline.search.surrogate.curves import OVER
from pipeline.storage.summary_file import ExpectedGain
from pipeline.training.balance import ONE_SIDED, hopeless, is_over
from pipeline.training.checkpoint import Failure, append_failure, grid_path, read_failures, read_records

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
    """One trial as the sweep knows it. state: one of `STATES`; cause: why it ended, empty if complete."""

    number: int
    params: dict[str, Value]
    state: str = "running"
    cause: str = ""
    records: list[TrialRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    reports: int = 0  # received by this process, repeated ones included
    hang_reason: str = ""  # why its worker is being ended

    @property
    def best(self) -> TrialRecord | None:
        """The record with the lowest fid; None where no record has one."""
        measured = [record for record in self.records if record.fid is not None]
        return min(measured, key=lambda record: record.fid or 0.0, default=None)


@dataclass
class _Totals:
    """Sums over all trials, kept up to date: Ray's loop asks for them in every iteration."""

    hours: float = 0.0
    failures: int = 0
    best_fid: float | None = None

    def add(self, record: TrialRecord, before: TrialRecord | None) -> None:
        """Add a record of a trial. Its seconds count from the start of the trial: the difference is added."""
        last = before.train_seconds + before.eval_seconds if before else 0.0
        self.hours += (record.train_seconds + record.eval_seconds - last) / 3600
        if record.fid is not None:
            self.best_fid = record.fid if self.best_fid is None else min(self.best_fid, record.fid)


class SweepCallback(Protocol):
    """Called in the driver for every event of a trial; must return at once."""

    def on_start(self, trial: SweepTrial) -> None: ...

    def on_record(self, trial: SweepTrial, record: TrialRecord) -> None: ...

    def on_failure(self, trial: SweepTrial, failure: Failure) -> None: ...

    def on_end(self, trial: SweepTrial) -> None: ...


class TrialManager:
    """The trials and the study of one sweep. Not thread-safe: Ray's driver loop is its only caller.

    spent_sec: seconds of search in earlier processes.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        config: SweepConfig,
        paths: SweepPaths,
        *,
        spent_sec: float = 0.0,
    ) -> None:
        self.study, self.space, self.config, self.paths = study, space, config, paths
        self.trials: dict[int, SweepTrial] = {}
        self.reason = ""  # why the search ends before its last trial, for people
        self.stopped_by = ""  # the same for programs: a field of SweepConfig
        self.interrupted = False  # if True, running trials stay RUNNING in the study, for a resume
        self.gpus_per_trial = 0.0  # or a fraction; set once the cluster is known
        self._callbacks: tuple[SweepCallback, ...] = ()
        self._totals = _Totals()
        self._full_kimg = space.config({}).kimg
        self._prices = budgets.parse_prices(config.price)
        self._optuna_trials: dict[int, Trial] = {}  # of running trials
        self._resumed: list[int] = []  # running trials of an earlier process, not handed out yet
        self._spent, self._begun = spent_sec, time.monotonic()
        self._ended: float | None = None
        self._ended_trials = EndedTrials(spent_sec)
        for frozen in study.get_trials(deepcopy=False):
            if frozen.state in _OPTUNA_STATES:
                self._restore(frozen, paths.trial(frozen.number))

    @property
    def seconds(self) -> float:
        """Seconds of search so far, earlier processes included."""
        return self._spent + (self._ended or time.monotonic()) - self._begun

    @property
    def gpu_hours(self) -> float:
        """GPU hours of all trials so far."""
        return self._totals.hours * self.gpus_per_trial

    @property
    def cost(self) -> float:
        """Cost of all trials so far, in the currency of `price`."""
        cpus, gpus = self.config.cpus_per_trial, self.gpus_per_trial
        return self._totals.hours * budgets.hourly_price(self._prices, cpus, gpus)

    @property
    def one_more_hour(self) -> ExpectedGain:
        """What one more hour of search should bring, as of the last end of a trial."""
        return self._ended_trials.one_more_hour

    def begin(self, callbacks: Iterable[SweepCallback]) -> None:
        """From now on call `callbacks` for every start, record, failure and end, in their order."""
        self._callbacks = tuple(callbacks)

    def ask(self) -> SweepTrial | None:
        """The next trial to run (one of an earlier process first), or None if no more are to start."""
        if self._resumed:
            return self.trials[self._resumed.pop(0)]
        if self.interrupted or self.should_stop() or len(self.trials) >= self.config.trials:
            return None
        number = len(self.study.get_trials(deepcopy=False, states=tuple(_OPTUNA_STATES)))
        self.study.sampler = make_sampler(self.config, self.space, number)
        optuna_trial = self.study.ask()
        params = suggest_params(self.space, optuna_trial)
        # A process whose ask never reached the study (a full disk) left files of another point here.
        shutil.rmtree(self.paths.trial(optuna_trial.number), ignore_errors=True)
        trial = SweepTrial(optuna_trial.number, params)
        self.trials[trial.number], self._optuna_trials[trial.number] = trial, optuna_trial
        self._notify("on_start", trial)
        return trial

    def report(self, record: TrialRecord) -> bool:
        """Take in a record. True if its trial must stop now; it has then been ended (`on_end`)."""
        trial = self.trials[record.trial]
        if trial.state != "running":
            return True
        trial.reports += 1
        optuna_trial = self._optuna_trials[record.trial]
        if not trial.records or record.kimg > trial.records[-1].kimg:
            self._totals.add(record, trial.records[-1] if trial.records else None)
            trial.records.append(record)
            optuna_trial.report(record.objective, step=record.kimg)
            self._notify("on_record", trial, record)
        elif record.kimg not in reported_steps(optuna_trial):
            optuna_trial.report(record.objective, step=record.kimg)
        if record.verdict == "diverged":
            return self._end(trial, "pruned", "diverged: a loss or a score is not finite")
        if self.config.pruner != "none" and hopeless(trial.records):
            return self._end(trial, "pruned", f"hopeless: {record.verdict} and the fid stands still")
        if record.kimg < self._full_kimg and optuna_trial.should_prune():
            return self._end(trial, "pruned", f"pruned by {self.config.pruner} at {record.kimg} kimg")
        return False

    def record_failure(self, number: int, kind: str, text: str) -> None:
        """Keep a failure of a trial in its folder and notify the callbacks; the trial may go on.

        kind: one of `pipeline.training.checkpoint.FAILURE_KINDS`. text: for people; cut to 500 characters.
        """
        trial = self.trials[number]
        kimg = trial.records[-1].kimg if trial.records else 0
        failure = Failure(len(trial.failures), kind, " ".join(text.split())[:500], kimg)
        trial.failures.append(failure)
        append_failure(self.paths.trial(number), failure)
        log.warning("trial %d: %s", number, failure)
        self._notify("on_failure", trial, failure)

    def mark_hung(self, number: int, reason: str) -> None:
        """Remember that the worker of a trial is ended because it hangs: the cause of its next failure."""
        self.trials[number].hang_reason = reason

    def on_worker_failure(self, number: int, kind: str, text: str) -> None:
        """The worker of a trial failed; Ray may run the trial again."""
        trial = self.trials[number]
        if trial.hang_reason:
            kind, text, trial.hang_reason = "hang", trial.hang_reason, ""
        self.record_failure(number, kind, text)

    def finish(self, number: int, error: str = "") -> None:
        """A trial has ended by itself: FAIL with an error or without a record, PRUNED if the search was
        stopped, else COMPLETE. Nothing happens to a trial that has ended already."""
        trial = self.trials[number]
        if trial.state != "running" or self.interrupted:
            return
        if error:
            self._end(trial, "failed", error)
        elif self.reason:
            self._end(trial, "pruned", f"stopped: {self.reason}")
        elif not trial.records:
            self._end(trial, "failed", "ended without a report")
        else:
            self._end(trial, "complete", "")

    def should_stop(self) -> bool:
        """Whether a budget is spent or the target is met; `reason` and `stopped_by` then tell which."""
        if not self.reason:
            totals, used = self._totals, (self.seconds, self.gpu_hours, self.cost)
            plateau = self.one_more_hour.plateau
            usage = budgets.Usage(*used, totals.failures, totals.best_fid, plateau)
            met = budgets.budget_reached(self.config, usage)
            if met is not None:
                self.stopped_by, self.reason = met
        return bool(self.reason)

    def close(self) -> None:
        """Stop the clock and finish the trials that are still running, unless the sweep was interrupted.

        What a trial recorded while Ray was ending it counts as well.
        """
        self._ended = time.monotonic()
        for trial in self.trials.values():
            if trial.state == "running" and not self.interrupted:
                for record in read_records(self.paths.trial(trial.number)):
                    self.report(record)
        for number in list(self.trials):
            self.finish(number)

    def notify_history(self, callbacks: Iterable[SweepCallback]) -> None:
        """Notify them of everything that earlier processes did; each skips what it has already."""
        for callback, trial in itertools.product(callbacks, self.trials.values()):
            callback.on_start(trial)
            for record in trial.records:
                callback.on_record(trial, record)
            for failure in trial.failures:
                callback.on_failure(trial, failure)
            if trial.state != "running":
                callback.on_end(trial)
        if self.trials:
            running = len(self._resumed)
            progress = f"{len(self.trials) - running} of {self.config.trials} trials over"
            log.info("resuming: %s, %d in progress", progress, running)

    def _restore(self, frozen: FrozenTrial, folder: Path) -> None:
        """Take a trial of an earlier process out of the study and its folder."""
        state = _OPTUNA_STATES[frozen.state]
        cause = str(frozen.user_attrs.get("cause", ""))
        trial = SweepTrial(frozen.number, dict(frozen.params), state, cause, failures=read_failures(folder))
        reported = frozen.intermediate_values
        trial.records = [r for r in read_records(folder) if r.kimg in reported or state != "running"]
        self.trials[frozen.number] = trial
        if state != "running":
            self._add_ended(trial, frozen.user_attrs.get(SEARCH_SECONDS))
        self._totals.failures += state == "failed"
        for before, record in zip([None, *trial.records], trial.records, strict=False):
            self._totals.add(record, before)
        if state == "running":
            self.study.sampler = make_sampler(self.config, self.space, frozen.number)
            optuna_trial = reopen_trial(self.study, frozen)
            # A kill may have come while its first parameters were suggested: suggest the rest.
            trial.params = suggest_params(self.space, optuna_trial)
            self._optuna_trials[frozen.number] = optuna_trial
            self._resumed.append(frozen.number)

    def _end(self, trial: SweepTrial, state: str, cause: str) -> bool:
        """Tell Optuna and the callbacks that a trial has ended; always True, for `report`."""
        optuna_trial = self._optuna_trials.pop(trial.number)
        trial.state, trial.cause, seconds = state, cause, round(self.seconds, 1)
        self._add_ended(trial, seconds)
        optuna_trial.set_user_attr(SEARCH_SECONDS, seconds)
        self._totals.failures += state == "failed"
        best = trial.best
        if best is not None or state == "complete":
            # A constraint (read by the sampler only) can be set only once, so not before the end. Gaussian
            # processes need it of every complete trial.
            optuna_trial.set_constraint("balance", ONE_SIDED - (best.balance if best else 0.0))
        if best is not None:
            optuna_trial.set_user_attr("best_kimg", best.kimg)
            optuna_trial.set_user_attr("balance", best.balance)
            attach_grid(
                optuna_trial, grid_path(self.paths.trial(trial.number), best.kimg), self.paths.gallery
            )
        if trial.records:
            optuna_trial.set_user_attr("verdict", trial.records[-1].verdict)
        if cause:
            optuna_trial.set_user_attr("cause", cause)
        if is_over(trial.records):
            optuna_trial.set_user_attr(OVER, True)
        if state == "complete":
            self.study.tell(optuna_trial, trial.records[-1].objective)
        else:
            self.study.tell(optuna_trial, state=TrialState.FAIL if state == "failed" else TrialState.PRUNED)
        self._notify("on_end", trial)
        return True

    def _add_ended(self, trial: SweepTrial, seconds: float | None) -> None:
        """Count an ended trial for `one_more_hour`. seconds: of search at its end; None = not known."""
        best, last = trial.best, trial.records[-1] if trial.records else None
        work = last.train_seconds + last.eval_seconds if last else 0.0
        self._ended_trials.add(seconds, best.fid if best else None, work)

    def _notify(self, event: str, *args: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(*args)


def rank_trials(trials: Iterable[SweepTrial]) -> list[SweepTrial]:
    """Trials by their best fid, lowest first; those without one last, by number."""
    return sorted(trials, key=lambda t: (objective_of(t.best.fid if t.best else None), t.number))
