"""A sweep read from its files, once: the input of the report and of the explanations.

What is missing or half written is None or empty. summary.json lists the best hundred trials; their numbers
are taken from there, so that every reader shows the same ones. Those of the other trials come from their
records.jsonl and from the event log (spool.jsonl).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import SweepPaths, TrialConfig
from pipeline.errors import UserError
from pipeline.records import TrialRecord
from pipeline.search.expected_gain import EndedTrials
from pipeline.search.space.definition import Space
from pipeline.search.space.parser import space_from_tables
from pipeline.storage.summary_file import (
    Best,
    ExpectedGain,
    FinalistRow,
    LeaderboardRow,
    Params,
    SweepSummary,
    no_sweep,
    read_summary,
)
from pipeline.tracking.event_log import TRIAL_STATUS, Event, read_events

STATE_OF_STATUS = {status: state for state, status in TRIAL_STATUS.items()}
"""A trial's state by the status (MLflow's) of its end event."""


@dataclass(frozen=True, kw_only=True)
class TrialView(LeaderboardRow):
    """A trial's row of the leaderboard, and its records, oldest first; state: empty if unknown."""

    records: tuple[TrialRecord, ...] = ()

    @property
    def number(self) -> int:
        """Optuna's number of the trial."""
        return self.trial

    @property
    def seconds(self) -> float:
        """Seconds spent training and measuring."""
        return self.records[-1].train_seconds + self.records[-1].eval_seconds if self.records else 0.0

    def best_at(self, kimg: float) -> float | None:
        """The lowest fid seen up to `kimg`."""
        fids = [r.fid for r in self.records if r.kimg <= kimg and r.fid is not None]
        return min(fids, default=None)


@dataclass(frozen=True)
class History:
    """A whole sweep.

    trials: best fid first, those without a fid last. stored, space: sweep.toml and the space in it; empty and
    None if it cannot be read.
    """

    root: Path
    summary: SweepSummary | None
    trials: tuple[TrialView, ...]
    stored: Mapping[str, Any] = field(default_factory=dict)
    space: Space | None = None

    @property
    def name(self) -> str:
        return (self.summary and self.summary.name) or self.root.name

    @property
    def best(self) -> Best | None:
        """The best trial as summary.json has it."""
        return self.summary.best if self.summary else None

    @property
    def finalists(self) -> tuple[FinalistRow, ...]:
        """The winner first; empty before they are measured."""
        return self.summary.finalists if self.summary else ()

    @property
    def points(self) -> list[tuple[Params, float | None]]:
        """Parameters and best fid of the measured trials, in order of their numbers."""
        return [(t.params, t.fid) for t in sorted(self.measured, key=lambda t: t.number)]

    @property
    def measured(self) -> tuple[TrialView, ...]:
        """The trials that have a fid, best first."""
        return tuple(trial for trial in self.trials if trial.fid is not None)

    @property
    def winner(self) -> TrialView | None:
        """The finalist that won; before the finalists are measured, the trial with the lowest fid."""
        best = self.find(self.best.trial) if self.best else None
        return best or next(iter(self.measured), None)

    @property
    def full_kimg(self) -> int | None:
        """The length of a full trial in kimg; None if the space is unknown."""
        return full_kimg(self.space)

    @property
    def one_more_hour(self) -> ExpectedGain:
        """What one more hour of search should bring.

        Of a sweep whose summary lacks it (an older version's), by the work of its trials in order of their
        numbers: `pipeline.search.expected_gain.place_in_time`.
        """
        if self.summary and self.summary.one_more_hour:
            return self.summary.one_more_hour
        ended = EndedTrials(self.summary.wall_seconds if self.summary else 0.0)
        for trial in sorted(self.trials, key=lambda t: t.number):
            if trial.state not in ("", "running"):
                ended.add(None, trial.fid, trial.seconds)
        return ended.one_more_hour

    def find(self, number: int) -> TrialView | None:
        """The trial with this number, or None."""
        return next((trial for trial in self.trials if trial.number == number), None)

    def finalist(self, trial: TrialView) -> FinalistRow | None:
        """The row of a trial among the finalists; None if it is not a finalist."""
        return next((row for row in self.finalists if row.best.trial == trial.number), None)

    def failures(self, trial: TrialView) -> list[str]:
        """The failures of a trial, oldest first; the trial may have been restarted after each of them."""
        rows = self.summary.failures if self.summary else ()
        return [str(row) for row in rows if row.trial == trial.number]

    def value(self, trial: TrialView, name: str) -> Any:
        """The trial's value of a hyper-parameter: suggested, fixed by the space, or the default."""
        fixed = self.space.fixed if self.space else {}
        return trial.params.get(name, fixed.get(name, TrialConfig.fields()[name].default))

    def run_folder(self, trial: TrialView) -> Path:
        """The folder of the run that represents `trial`: its own, or that of the rerun with the best seed."""
        row = self.finalist(trial)
        seeds = [run.seed for run in row.runs] if row else []
        index = seeds.index(row.best.trial_seed) if row and row.best.trial_seed in seeds else 0
        return SweepPaths(self.root).rerun(trial.number, index)


def read_history(root: Path) -> History:
    """Read the sweep in the folder `root`.

    Raises:
        SweepError: `root` is not a sweep's folder.
    """
    paths = SweepPaths(root)
    summary, records = read_summary(paths.summary), _all_records(root)
    if summary is None and not records:
        raise no_sweep(root)
    stored = _stored(paths.config)
    trials = trial_views(summary, records, _events(paths.event_log))
    return History(root, summary, tuple(trials), stored, _space(stored))


def read_space(root: Path) -> Space | None:
    """The search space of the sweep in `root`; None if its sweep.toml cannot be read."""
    return _space(_stored(SweepPaths(root).config))


def full_kimg(space: Space | None) -> int | None:
    """The length of a full trial in kimg; None if the space is unknown."""
    try:
        return space.config({}).kimg if space else None
    except UserError:  # a fixed value that this version's configuration does not have
        return None


def trial_views(
    summary: SweepSummary | None,
    records: Mapping[int, Sequence[TrialRecord]] | None = None,
    events: Sequence[Event] = (),
) -> list[TrialView]:
    """The trials of a sweep, best first.

    records: of each trial, by its number. events: of trials that the summary's leaderboard does not list.
    """
    records = records or {}
    rows = {row.trial: row for row in summary.leaderboard} if summary else {}
    started, ended = _last_events(events, "start"), _last_events(events, "end")
    for number in (records.keys() | started.keys()) - rows.keys():
        start, end = started.get(number), ended.get(number)
        rows[number] = LeaderboardRow.of_records(
            number,
            records.get(number, ()),
            state=STATE_OF_STATUS.get(end["status"], "") if end else "running" if start else "",
            params=start["params"] if start else {},
            cause=end.get("cause", "") if end else "",
        )
    trials = [TrialView(**vars(row), records=tuple(records.get(row.trial, ()))) for row in rows.values()]
    return sorted(trials, key=lambda t: (t.fid is None, t.fid or 0.0, t.number))


def _last_events(events: Sequence[Event], kind: str) -> dict[int, Event]:
    """The last event of a kind of every trial, by trial number."""
    return {e["trial"]: e for e in events if e["event"] == kind and e["trial"] is not None}


def differing_params(trials: Iterable[TrialView]) -> list[str]:
    """The hyper-parameters that differ between trials or are missing in some, in order of occurrence."""
    trials = list(trials)
    names = {name: None for trial in trials for name in trial.params}
    shown = {name: {repr(t.params[name]) if name in t.params else "" for t in trials} for name in names}
    return [name for name, values in shown.items() if len(values) > 1]


def _all_records(root: Path) -> dict[int, list[TrialRecord]]:
    """The complete records of every trial below `root`, by trial number, oldest first."""
    # Imported here because it imports torch, which `gansweep watch` does not need.
    from pipeline.training.checkpoint import read_records

    folders = [path for path in (root / "trials").glob("*") if path.name.isdigit()]
    return {int(path.name): read_records(path) for path in folders}


def _events(path: Path) -> list[Event]:
    """The valid events in the event log; those before the place where it cannot be read."""
    events = []
    with suppress(OSError):
        for _, event in read_events(path):
            if event is not None:
                events.append(event)
    return events


def _stored(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _space(stored: Mapping[str, Any]) -> Space | None:
    """The search space, or None if it cannot be read (a sweep of an older version)."""
    try:
        return space_from_tables(stored["space"], "sweep.toml")
    except (UserError, KeyError, TypeError, AttributeError):
        return None
