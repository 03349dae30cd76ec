"""Keeps summary.json up to date while a sweep runs; `pipeline.storage.summary_file` defines its content."""

from __future__ import annotations

import time
from collections.abc import Iterable

from pipeline.config import SweepConfig, SweepPaths
from pipeline.search.trial_manager import STATES, SweepTrial, TrialManager, rank_trials
from pipeline.storage.files import DiskSpace, size_of, write_text
from pipeline.storage.summary_file import (
    Best,
    FailureRow,
    FidEvaluator,
    FinalistRow,
    LeaderboardRow,
    RegisteredVersion,
    RunningRow,
    SecondOpinion,
    SweepState,
    SweepSummary,
    TrialCounts,
    read_summary,
)

_PERIOD_SEC = 2.0
_SIZING_SEC = 60.0
_LEADERS = 100


class Summary:
    """A `SweepCallback` that rewrites summary.json, at most every two seconds.

    Finalists and the registered version of an earlier process are kept until they are set again.
    """

    def __init__(
        self, paths: SweepPaths, config: SweepConfig, evaluator: FidEvaluator, manager: TrialManager
    ) -> None:
        self.paths, self._config, self._evaluator, self._manager = paths, config, evaluator, manager
        before = read_summary(paths.summary)
        self._registered = before.registered if before else None
        self._finalists = before.finalists if before else ()
        self._opinion = before.second_opinion if before else None
        self._state: SweepState = "running"
        self._written = 0.0
        self._size = (-_SIZING_SEC, 0)  # time of the last measurement, bytes
        self._space = DiskSpace("summary.json is not updated")

    def _write_seldom(self, *event: object) -> None:
        if time.monotonic() - self._written >= _PERIOD_SEC:
            self.write()

    on_start = on_record = on_failure = _write_seldom

    def on_end(self, trial: SweepTrial) -> None:
        """Write; at once when no trial runs any more, because measuring the finalists may take long."""
        if any(each.state == "running" for each in reversed(self._manager.trials.values())):
            self._write_seldom()
        else:
            self.write()

    def set_finalists(self, finalists: Iterable[FinalistRow], opinion: SecondOpinion | None = None) -> None:
        """Write the finalists, best first, and the opinion on the first one, which becomes the best trial."""
        self._finalists, self._opinion = tuple(finalists), opinion
        self.write()

    def set_registered(self, version: RegisteredVersion | None) -> None:
        """Write the registered version; None if the registry did not take it."""
        self._registered = version
        self.write()

    def set_state(self, state: SweepState) -> None:
        """Write the state of the sweep."""
        self._state = state
        self.write()

    def write(self) -> None:
        """Rewrite the file."""
        self._written = time.monotonic()
        with self._space.tolerate_full():
            write_text(self.paths.summary, self.content().to_text())

    def _disk(self) -> int:
        """Size of the sweep's folder in bytes.

        Measured at most once a minute while the sweep runs: it may be many files on a slow disk.
        """
        if time.monotonic() - self._size[0] > _SIZING_SEC or self._state != "running":
            self._size = time.monotonic(), size_of(self.paths.root)
        return self._size[1]

    def content(self) -> SweepSummary:
        """The state of the sweep now."""
        manager, config = self._manager, self._config
        trials = list(manager.trials.values())
        ranked = rank_trials(trials)
        running = [trial for trial in trials if trial.state == "running"]
        states = [trial.state for trial in trials]
        return SweepSummary(
            name=config.name,
            state=self._state,
            reason=manager.reason,
            stopped_by=manager.stopped_by or None,
            wall_seconds=round(manager.seconds, 2),
            kimg_total=sum(trial.records[-1].kimg for trial in trials if trial.records),
            trials=TrialCounts(**{state: states.count(state) for state in STATES}),
            trials_asked=config.trials,
            time_budget_sec=config.time_budget_sec,
            gpu_hours=round(manager.gpu_hours, 4),
            cost=round(manager.cost, 4) if config.price else None,
            best=self._finalists[0].best if self._finalists else _best(ranked),
            running=tuple(map(_running, running)),
            one_more_hour=manager.one_more_hour,
            disk_bytes=self._disk(),
            images_per_sec=round(sum(t.records[-1].images_per_sec for t in running if t.records), 1),
            failures=tuple(FailureRow(trial=t.number, **vars(f)) for t in trials for f in t.failures),
            leaderboard=tuple(map(leaderboard_row, ranked[:_LEADERS])),
            registered=self._registered,
            evaluator=self._evaluator,
            finalists=self._finalists,
            second_opinion=self._opinion,
        )


def leaderboard_row(trial: SweepTrial) -> LeaderboardRow:
    """The leaderboard's row of a trial."""
    return LeaderboardRow.of_records(
        trial.number, trial.records, state=trial.state, params=trial.params, cause=trial.cause
    )


def _best(ranked: list[SweepTrial]) -> Best | None:
    row = leaderboard_row(ranked[0]) if ranked else None
    if row is None or row.fid is None:
        return None
    return Best(trial=row.trial, fid=row.fid, balance=row.balance, kimg=row.kimg, params=row.params)


def _running(trial: SweepTrial) -> RunningRow:
    row = vars(leaderboard_row(trial))
    return RunningRow(**{name: row[name] for name in ("trial", "fid", "balance", "last_kimg", "verdict")})
