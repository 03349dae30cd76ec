"""The search: one Optuna study, seen by Ray as its Searcher and as its TrialScheduler.

Owns: `Ledger` (ask, report, finish: every trial told once), the two thin Ray classes over it, samplers
and pruners. Refuses: names of hyper-parameters, MLflow, files other than the study's.

The study is the single truth; Ray remembers nothing. A ledger opened on a study that already has trials
hands out those still RUNNING first, under their own number, and then asks for new ones up to the limit.

Fidelity: Optuna sees the objective, the best fid so far, at every tick (step = kimg). A trial that ran to
its end is COMPLETE with it; one that was stopped is PRUNED, which TPE ranks by how far it came.
NaN policy: an objective is always finite (`pipeline.records`), so none is lost to the study.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from pipeline.balance import ONE_SIDED, hopeless
from pipeline.checkpoint import read_records
from pipeline.config import SweepConfig, SweepPaths
from pipeline.records import TrialRecord, objective_of
from pipeline.spaces import Distribution, Space

REDUCTION = 3
"""Each rung keeps the best third (reference: rank correlation of fids is 0.8 after 5-10 % of a run)."""

GRACE = 0.07
"""Share of a full trial before the first judgement."""

STATES = ("running", "complete", "pruned", "failed")
_OPTUNA_STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass
class Entry:
    """One trial as the sweep knows it."""

    number: int
    params: dict[str, Any]
    state: str = "running"
    cause: str = ""
    records: list[TrialRecord] = field(default_factory=list)

    @property
    def best(self) -> TrialRecord | None:
        """The record with the lowest fid; records without one never win."""
        measured = [record for record in self.records if record.fid is not None]
        return min(measured, key=lambda record: record.fid or 0.0, default=None)


class Listener(Protocol):
    """Who wants to hear of trials as they go; called in the driver, so it returns at once."""

    def on_start(self, entry: Entry) -> None: ...

    def on_record(self, entry: Entry, record: TrialRecord) -> None: ...

    def on_end(self, entry: Entry) -> None: ...


class Ledger:
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
        listeners: Sequence[Listener] = (),
        spent_sec: float = 0.0,
    ) -> None:
        self.study, self.space, self.plan = study, space, plan
        self.listeners, self._paths = listeners, paths
        self.entries: dict[int, Entry] = {}
        self.reason = ""  # why the search ends before its last trial
        self.interrupted = False  # then running trials stay RUNNING, for a resume
        self.gpus_per_trial = 0.0  # set once the cluster is known
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
        last = [entry.records[-1] for entry in self.entries.values() if entry.records]
        return sum(r.train_seconds + r.eval_seconds for r in last) * self.gpus_per_trial / 3600

    def ask(self) -> Entry | None:
        """The next trial to run, or None where the search asks for no more."""
        if self._readopted:
            return self.entries[self._readopted.pop(0)]
        if self.interrupted or self.over() or len(self.entries) >= self.plan.trials:
            return None
        number = len(self.study.get_trials(deepcopy=False, states=tuple(_OPTUNA_STATES)))
        self.study.sampler = make_sampler(self.plan.sampler, self.plan.seed, number)
        trial = self.study.ask()
        params = draw(self.space, trial)
        entry = Entry(trial.number, params)
        self.entries[entry.number], self._trials[entry.number] = entry, trial
        self._tell_all("on_start", entry)
        return entry

    def report(self, record: TrialRecord) -> bool:
        """Take in a record; True if its trial must stop now (it has been told then)."""
        entry = self.entries[record.trial]
        if entry.state != "running":
            return True
        trial = self._trials[record.trial]
        if not entry.records or record.kimg > entry.records[-1].kimg:
            entry.records.append(record)
            trial.report(record.objective, step=record.kimg)
            self._tell_all("on_record", entry, record)
        elif record.kimg not in self.study._storage.get_trial(trial._trial_id).intermediate_values:
            trial.report(record.objective, step=record.kimg)
        if record.verdict == "diverged":
            return self._end(entry, "pruned", "diverged: a loss or a score is not finite")
        if self.plan.pruner != "none" and hopeless(entry.records):
            return self._end(entry, "pruned", f"hopeless: {record.verdict} and the fid stands still")
        if record.kimg < self.space.config({}).kimg and trial.should_prune():
            return self._end(entry, "pruned", f"pruned by {self.plan.pruner} at {record.kimg} kimg")
        return False

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
        """Whether a budget is spent; `reason` says which."""
        if not self.reason and 0 < self.plan.time_budget_sec <= self.seconds:
            self.reason = f"time budget of {self.plan.time_budget_sec:g} s is spent"
        if not self.reason and 0 < self.plan.gpu_hours <= self.gpu_hours:
            self.reason = f"budget of {self.plan.gpu_hours:g} GPU hours is spent"
        return bool(self.reason)

    def close(self) -> None:
        """Stop the clock, and tell the trials that a spent budget left running.

        What a trial recorded while Ray was ending it counts as well.
        """
        self._ended = time.monotonic()
        for entry in self.entries.values():
            if entry.state == "running" and not self.interrupted:
                for record in read_records(self._paths.trial(entry.number)):
                    self.report(record)
        for entry in list(self.entries.values()):
            self.finish(entry.number)

    def replay(self) -> None:
        """Tell the listeners of all that earlier processes did; they know what they have heard."""
        for entry in self.entries.values():
            self._tell_all("on_start", entry)
            for record in entry.records:
                self._tell_all("on_record", entry, record)
            if entry.state != "running":
                self._tell_all("on_end", entry)

    def _recall(self, frozen: FrozenTrial, folder: Path) -> None:
        state = _OPTUNA_STATES[frozen.state]
        cause = str(frozen.user_attrs.get("cause", ""))
        entry = Entry(frozen.number, dict(frozen.params), state, cause)
        told = frozen.intermediate_values
        entry.records = [r for r in read_records(folder) if r.kimg in told or state != "running"]
        self.entries[frozen.number] = entry
        if state == "running":
            self._trials[frozen.number] = Trial(self.study, frozen._trial_id)
            self._readopted.append(frozen.number)

    def _end(self, entry: Entry, state: str, cause: str) -> bool:
        trial = self._trials.pop(entry.number)
        entry.state, entry.cause = state, cause
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
        if state == "complete":
            self.study.tell(trial, entry.records[-1].objective)
        else:
            self.study.tell(trial, state=TrialState.FAIL if state == "failed" else TrialState.PRUNED)
        self._tell_all("on_end", entry)
        return True

    def _tell_all(self, event: str, *args: Any) -> None:
        for listener in self.listeners:
            getattr(listener, event)(*args)


def open_study(name: str, storage: str | Path, plan: SweepConfig, space: Space) -> optuna.Study:
    """Open the sweep's study, or make it with the space's enqueued points waiting.

    storage: a journal file, or a database URL.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if isinstance(storage, Path):
        storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=name,
        storage=_storage(storage),
        direction="minimize",
        load_if_exists=True,
        sampler=make_sampler(plan.sampler, plan.seed, 0),
        pruner=make_pruner(plan.pruner, space),
    )
    if "enqueued" not in study.user_attrs:
        for point in space.enqueue:
            study.enqueue_trial(dict(point), skip_if_exists=True)
        study.set_user_attr("enqueued", len(space.enqueue))
    return study


def make_sampler(name: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for trial `number`: seeded by both, so a resumed search draws what it would have."""
    own = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    if name == "random":
        return optuna.samplers.RandomSampler(seed=own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `group` is marked experimental; without it `when` loses TPE
        return optuna.samplers.TPESampler(seed=own, multivariate=True, group=True, constant_liar=True)


def make_pruner(name: str, space: Space) -> optuna.pruners.BasePruner:
    """The pruner, with its bounds in kimg set from the length of a full trial."""
    full = space.config({})
    grace = max(full.tick_kimg, math.ceil(full.kimg * GRACE))
    if name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=REDUCTION)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=grace, max_resource=full.kimg, reduction_factor=REDUCTION
        )
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=grace)
    return optuna.pruners.NopPruner()


def draw(space: Space, trial: Trial) -> dict[str, Any]:
    """Draw the parameters that take part, in the space's order."""
    drawn: dict[str, Any] = {}
    for name, distribution in space.search.items():
        if space.active(name, drawn):
            drawn[name] = _suggest(trial, name, distribution)
    return drawn


class StudySearcher(Searcher):  # type: ignore[misc]
    """Ray's Searcher over a ledger: hands out (number, parameters) and notes the ends."""

    def __init__(self, ledger: Ledger) -> None:
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
            self._ledger.finish(number, "the worker died or raised" if error else "")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the only memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles its configuration to disk; no study, no database URL goes there


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Ray's TrialScheduler over a ledger: every report goes to the study, which says when to stop."""

    def __init__(self, ledger: Ledger) -> None:
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
        stop = self._ledger.report(result["record"])
        return TrialScheduler.STOP if stop else TrialScheduler.CONTINUE  # type: ignore[no-any-return]

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        error = trial.get_error()
        text = "worker died" if error is None else str(error).strip().splitlines()[-1][:500]
        self._ledger.finish(trial.config["number"], text)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudyStopper(Stopper):  # type: ignore[misc]
    """Ends the whole search when its budget is spent or it was told to."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._ledger.interrupted or self._ledger.over()

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _suggest(trial: Trial, name: str, d: Distribution) -> Any:
    if d.choices:
        return trial.suggest_categorical(name, list(d.choices))
    if d.whole:
        return trial.suggest_int(name, int(d.low), int(d.high), log=d.log)
    return trial.suggest_float(name, d.low, d.high, log=d.log)


def _storage(where: str | Path) -> Any:
    if isinstance(where, Path):
        return JournalStorage(JournalFileBackend(str(where)))
    return where


def rank(entries: Iterable[Entry]) -> list[Entry]:
    """Entries by their best fid, lowest first; those without one last, by number."""
    return sorted(entries, key=lambda e: (objective_of(e.best.fid if e.best else None), e.number))
