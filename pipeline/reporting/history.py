"""A sweep as its own files tell it, read once: for the report and the explanations.

Owns: `Told` (one trial), `History` (all of them, the space, who won). Refuses: judging, drawing, writing.

Files may be missing, half written or of a sweep that runs: what can be read is there, all else is None or
empty. Where summary.json lists a trial (it lists the best hundred) its numbers are taken from there, so
that every reader shows the same; the others come from their records and from the spool.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import SweepPaths, TrialConfig
from pipeline.errors import SweepError, UserError
from pipeline.records import TrialRecord
from pipeline.search.space.definition import Space
from pipeline.search.space.parser import space_from_tables
from pipeline.storage.summary_file import read_summary
from pipeline.tracking.event_log import read_events

_STATES = {"FINISHED": "complete", "KILLED": "pruned", "FAILED": "failed"}
_NUMBERS = ("fid", "balance", "auc", "kimg", "stability")


@dataclass(frozen=True)
class TrialView:
    """One trial at its best tick, and how it ended.

    state: running, complete, pruned, failed, or empty where nobody knows. fid, balance, auc, kimg: at
    the tick of the best fid. stability: last fid / best fid. verdict: of the last tick. cause: why it ended
    early.
    """

    number: int
    state: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    cause: str = ""
    records: tuple[TrialRecord, ...] = ()
    fid: float | None = None
    balance: float | None = None
    auc: float | None = None
    kimg: float | None = None
    last_kimg: float = 0
    stability: float | None = None
    verdict: str = ""

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
    """A whole sweep: its trials, best fid first, those without one last.

    stored: sweep.toml, empty where it cannot be read; space: what it says was searched.
    """

    root: Path
    summary: Mapping[str, Any]
    trials: tuple[TrialView, ...]
    stored: Mapping[str, Any] = field(default_factory=dict)
    space: Space | None = None

    @property
    def name(self) -> str:
        return str(self.summary.get("name") or self.root.name)

    @property
    def points(self) -> list[tuple[Mapping[str, Any], float | None]]:
        """Parameters and best fid of the measured trials, by number."""
        return [(t.params, t.fid) for t in sorted(self.measured, key=lambda t: t.number)]

    @property
    def measured(self) -> tuple[TrialView, ...]:
        """The trials that have a fid, best first."""
        return tuple(told for told in self.trials if told.fid is not None)

    @property
    def winner(self) -> TrialView | None:
        """The trial that the finals chose; before them the one with the lowest fid."""
        number = (self.summary.get("best") or {}).get("trial")
        return self.find(number) or next(iter(self.measured), None)

    @property
    def full_kimg(self) -> int | None:
        """The length of a full trial."""
        return _full_kimg(self.space)

    @property
    def finals(self) -> list[Mapping[str, Any]]:
        """The finalists' rows, the winner's first; empty before the finals."""
        rows = self.summary.get("finalists")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def find(self, number: object) -> TrialView | None:
        return next((told for told in self.trials if told.number == number), None)

    def failures(self, told: TrialView) -> list[str]:
        """What went wrong with a trial on its way, oldest first; it may have gone on after that."""
        rows = [row for row in self.summary.get("failures") or [] if isinstance(row, dict)]
        mine = [row for row in rows if row.get("trial") == told.number]
        return [f"{row.get('kind')} after {row.get('kimg')} kimg: {row.get('text')}" for row in mine]

    def value(self, told: TrialView, name: str) -> Any:
        """What `told` had for a hyper-parameter: drawn, fixed by the space, or the default."""
        fixed = self.space.fixed if self.space else {}
        return told.params.get(name, fixed.get(name, TrialConfig.fields()[name].default))

    def run_folder(self, told: TrialView) -> Path:
        """Where the run lies that stands for the winner: the trial's own folder, or another seed's."""
        for row in self.finals:
            best = row.get("best") or {}
            if best.get("trial") == told.number:
                seeds = [run.get("seed") for run in row.get("runs") or []]
                index = seeds.index(best.get("trial_seed")) if best.get("trial_seed") in seeds else 0
                return SweepPaths(self.root).rerun(told.number, index)
        return SweepPaths(self.root).trial(told.number)


def read_history(root: Path) -> History:
    """All that the files in `root` tell.

    Raises:
        SweepError: `root` is no sweep's folder.
    """
    paths = SweepPaths(root)
    summary, records = read_summary(paths.summary), _all_records(root)
    if not summary and not records:
        raise SweepError(
            "a sweep's folder holds summary.json", seen=str(root), fix="pass DIR/NAME of `gansweep run`"
        )
    stored = _stored(paths.config)
    trials = trial_views(summary, records, *_told_by_spool(paths.spool))
    return History(root, summary, tuple(trials), stored, _space(stored))


def full_kimg(root: Path) -> int | None:
    """The length of a full trial of the sweep in `root`; None where its files do not tell."""
    return _full_kimg(_space(_stored(SweepPaths(root).config)))


def trial_views(
    summary: Mapping[str, Any],
    records: Mapping[int, Sequence[TrialRecord]] | None = None,
    started: Mapping[int, Mapping[str, Any]] | None = None,
    ended: Mapping[int, Mapping[str, Any]] | None = None,
) -> list[TrialView]:
    """The trials, best first; started, ended: the spool's events of those that the summary leaves out."""
    records, started, ended = records or {}, started or {}, ended or {}
    listed = [row for row in summary.get("leaderboard") or [] if isinstance(row, dict)]
    rows = {int(row["trial"]): row for row in listed if isinstance(row.get("trial"), int)}
    told = [_of_row(number, row, records.get(number, ())) for number, row in rows.items()]
    for number in sorted((records.keys() | started.keys()) - rows.keys()):
        told.append(
            _of_records(number, records.get(number, ()), started.get(number, {}), ended.get(number, {}))
        )
    return sorted(told, key=lambda t: (t.fid is None, t.fid or 0.0, t.number))


def _of_row(number: int, row: Mapping[str, Any], records: Sequence[TrialRecord]) -> TrialView:
    params = row.get("params")
    return TrialView(
        number=number,
        state=str(row.get("state") or ""),
        params=params if isinstance(params, dict) else {},
        cause=str(row.get("cause") or ""),
        records=tuple(records),
        last_kimg=finite(row.get("last_kimg")) or 0,
        verdict=str(row.get("verdict") or ""),
        **{name: finite(row.get(name)) for name in _NUMBERS},
    )


def _of_records(
    number: int, records: Sequence[TrialRecord], start: Mapping[str, Any], end: Mapping[str, Any]
) -> TrialView:
    with_fid = [record for record in records if record.fid is not None]
    best = min(with_fid, key=lambda record: record.fid or 0.0, default=None)
    last = records[-1] if records else None
    stable = best is not None and last is not None and best.fid and last.fid
    return TrialView(
        number=number,
        state=_STATES.get(str(end.get("status")), "running" if start else ""),
        params=dict(start.get("params") or {}),
        cause=str(end.get("cause") or ""),
        records=tuple(records),
        fid=best.fid if best else None,
        balance=finite(best.balance) if best else None,
        auc=finite(best.auc) if best else None,
        kimg=best.kimg if best else None,
        last_kimg=last.kimg if last else 0,
        stability=last.fid / best.fid if stable and last and best and last.fid and best.fid else None,
        verdict=last.verdict if last else "",
    )


def finite(value: object) -> float | None:
    """The number, or None where it is none or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def differing_params(trials: Iterable[TrialView]) -> list[str]:
    """The hyper-parameters that do not have one value in all trials, in order of first sight."""
    trials = list(trials)
    seen: dict[str, set[str]] = {}
    for told in trials:
        for name, value in told.params.items():
            seen.setdefault(str(name), set()).add(repr(value))
    everywhere = {name for name in seen if all(name in told.params for told in trials)}
    return [name for name, values in seen.items() if len(values) > 1 or name not in everywhere]


def short_number(value: object) -> str:
    """A hyper-parameter or a count in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _all_records(root: Path) -> dict[int, list[TrialRecord]]:
    """The whole records of every trial below `root`, by trial, oldest first."""
    from pipeline.training.checkpoint import (
        read_records,  # with torch, which `gansweep watch` need not wait for
    )

    folders = [path for path in (root / "trials").glob("*") if path.name.isdigit()]
    return {int(path.name): read_records(path) for path in folders}


def _told_by_spool(path: Path) -> tuple[dict[int, Mapping[str, Any]], dict[int, Mapping[str, Any]]]:
    """How trials began and ended, by number."""
    told: dict[str, dict[int, Mapping[str, Any]]] = {"start": {}, "end": {}}
    try:
        for _, event in read_events(path):
            if event is not None and event["event"] in told and isinstance(event.get("trial"), int):
                told[event["event"]][event["trial"]] = event
    except OSError:
        pass
    return told["start"], told["end"]


def _full_kimg(space: Space | None) -> int | None:
    try:
        return space.config({}).kimg if space else None
    except UserError:  # a fixed value that today's configuration does not have
        return None


def _stored(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _space(stored: Mapping[str, Any]) -> Space | None:
    """The space, or None where it cannot be read (a sweep of an older version)."""
    try:
        return space_from_tables(stored["space"], "sweep.toml")
    except (UserError, KeyError, TypeError, AttributeError):
        return None
