"""The content of summary.json: its one definition, from which writer, reader and schema come.

`pipeline.reporting.summary` fills it in while a sweep runs. A number that is unknown or not finite is None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from pipeline.errors import SweepError
from pipeline.records import TrialRecord
from pipeline.storage.readable import finite
from pipeline.storage.typed_json import from_json, schema_of, to_json, whole

ParamValue: TypeAlias = int | float | str | bool | None
Params: TypeAlias = Mapping[str, ParamValue]
SweepState: TypeAlias = Literal["running", "finished", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class TrialCounts:
    """How many trials are in each state."""

    failed: int
    pruned: int
    complete: int
    running: int

    @property
    def ended(self) -> int:
        return self.failed + self.pruned + self.complete


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best trial. fid: the lowest of its ticks; balance, kimg: at that tick."""

    trial: int
    fid: float
    balance: float | None
    kimg: float | None
    params: Params


@dataclass(frozen=True, kw_only=True)
class FinalistBest(Best):
    """The best run of a finalist. fid: of the final measurement.

    search_fid: the lowest of its ticks, as the search saw it. fid_mean, fid_std: over the seeds that were
    measured; no deviation of a single one. fresh_fid: mean of fids measured as in the search, with fresh
    latents. gap: fresh_fid - search_fid.
    """

    search_fid: float
    trial_seed: int | None = None
    fid_mean: float | None = None
    fid_std: float | None = None
    fresh_fid: float | None = None
    gap: float | None = None


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow:
    """A trial: its numbers at the tick of its best fid, and how it ended.

    state: running, complete, pruned or failed. last_kimg: length of its training so far. verdict: of its last
    tick. stability: last fid / best fid. cause: why it ended early; empty if it did not.
    """

    trial: int
    state: str
    fid: float | None
    balance: float | None
    auc: float | None = None
    kimg: float | None
    last_kimg: float = 0
    verdict: str = ""
    stability: float | None = None
    params: Params
    cause: str = ""

    @classmethod
    def of_records(
        cls, trial: int, records: Sequence[TrialRecord], *, state: str, params: Params, cause: str
    ) -> LeaderboardRow:
        """The row of the trial with these records, oldest first."""
        measured = [record for record in records if record.fid is not None]
        best = min(measured, key=lambda record: record.fid or 0.0, default=None)
        last = records[-1] if records else None
        return cls(
            trial=trial,
            state=state,
            fid=best.fid if best else None,
            balance=finite(best.balance) if best else None,
            auc=finite(best.auc) if best else None,
            kimg=best.kimg if best else None,
            last_kimg=last.kimg if last else 0,
            verdict=last.verdict if last else "",
            stability=last.fid / best.fid if last and last.fid and best and best.fid else None,
            params=params,
            cause=cause,
        )


@dataclass(frozen=True, kw_only=True)
class RunningRow:
    """A trial that runs. fid, balance: at the tick of its best fid; verdict: of its last tick."""

    trial: int
    fid: float | None
    balance: float | None
    last_kimg: float
    verdict: str


@dataclass(frozen=True, kw_only=True)
class FailureRow:
    """A failure of a trial, which may have been restarted after it."""

    trial: int
    index: int = 0
    kind: str
    text: str
    kimg: int = 0

    def __str__(self) -> str:
        return f"{self.kind} after {self.kimg} kimg: {self.text}"


@dataclass(frozen=True, kw_only=True)
class FinalistRunRow:
    """One training of a finalist's configuration, measured again; problem: why there is no measurement."""

    seed: int | None = None
    kimg: float | None = None
    search_fid: float | None = None
    fresh_fid: float | None = None
    fid: float | None
    fid_low: float | None = None
    fid_high: float | None = None
    verdicts: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class FinalMeasurement:
    """What was measured of a finalist's best run.

    n: number of samples. fid_low, fid_high: 95 % of measurements with as many lie between them. verdicts: why
    the run may not be promoted. values: every key of `pipeline.metrics.measurement.Measurement`.
    """

    n: int
    fid: float | None = None
    fid_low: float
    fid_high: float
    verdicts: tuple[str, ...]
    values: Mapping[str, object] = whole()


@dataclass(frozen=True, kw_only=True)
class FinalistRow:
    """A finalist: its best run, all its runs (the trial itself first), the measurement of the best."""

    best: FinalistBest
    runs: tuple[FinalistRunRow, ...] = ()
    measurement: FinalMeasurement


@dataclass(frozen=True, kw_only=True)
class SecondOpinion:
    """What an extractor that took no part in the search says of the winner.

    hash: of its evaluator. samples: of each finalist. trial: the finalist with the lowest fid in it. agrees:
    false where that is another one, and their intervals are apart in both extractors.
    """

    extractor: str
    hash: str
    samples: int
    trial: int
    agrees: bool
    text: str

    def __str__(self) -> str:
        return f"{self.extractor}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class FidEvaluator:
    """What the fids of a sweep were measured with; only fids with the same hash can be compared."""

    extractor: str = ""
    hash: str = ""
    samples: int = 0


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry. alias: the one it was given or holds, None = none. reason: why."""

    name: str
    version: int | str
    alias: str | None
    uri: str
    reason: str = ""

    @property
    def model(self) -> str:
        """The address to load it by: of its alias if it has one."""
        return f"models:/{self.name}@{self.alias}" if self.alias else self.uri


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """summary.json.

    Attributes:
        reason, stopped_by: why the search ended before its last trial: for people, and the limit's name.
        wall_seconds: of the search, earlier processes included.
        kimg_total: thousands of real images shown, by all trials.
        gpu_hours, cost: of all trials so far; no cost without prices.
        best: the best finalist's; before the finalists are measured, the trial with the lowest fid.
        images_per_sec: of all running trials together.
        leaderboard: the best hundred trials, best first.
        finalists: best first; empty before they are measured.
        second_opinion: on the first of them; None = there is no second extractor.
    """

    name: str
    state: SweepState
    reason: str = ""
    stopped_by: str | None = None
    wall_seconds: float
    kimg_total: float
    trials: TrialCounts
    trials_asked: int = 0
    time_budget_sec: float = 0.0
    gpu_hours: float = 0.0
    cost: float | None = None
    best: FinalistBest | Best | None
    running: tuple[RunningRow, ...] = ()
    disk_bytes: float = 0
    images_per_sec: float = 0.0
    failures: tuple[FailureRow, ...] = ()
    leaderboard: tuple[LeaderboardRow, ...]
    registered: RegisteredVersion | None = None
    evaluator: FidEvaluator = field(default_factory=FidEvaluator)
    finalists: tuple[FinalistRow, ...] = ()
    second_opinion: SecondOpinion | None = None

    def to_text(self) -> str:
        """The file's content."""
        return json.dumps(to_json(self), indent=1, allow_nan=False) + "\n"


_SCHEMA = schema_of(SweepSummary)


def read_summary(path: Path) -> SweepSummary | None:
    """The summary.json at `path`; None if there is none.

    Raises:
        SweepError: it cannot be read, or a key is missing or has another type.
    """
    try:
        return parse_summary(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise SweepError(
            "{seen} cannot be read",
            rule=str(problem.strerror).lower(),
            seen=str(path),
            fix="make the sweep's folder readable for this user",
        ) from problem
    except (ValueError, RecursionError) as problem:
        raise SweepError(
            "summary.json cannot be used",
            rule="it must be as gansweep wrote it",
            seen=str(problem),
            fix="delete it: the next resume writes it again",
        ) from problem


def parse_summary(text: bytes | str) -> SweepSummary:
    """The summary in the content of a summary.json.

    Raises:
        ValueError, RecursionError: it is no JSON, or a key is missing or has another type.
    """
    from jsonschema import Draft202012Validator

    content = json.loads(text, parse_constant=_refuse_constant)
    error = next(Draft202012Validator(_SCHEMA).iter_errors(content), None)
    if error is not None:
        raise ValueError(f"{'.'.join(map(str, error.absolute_path))}: {error.message}")
    return from_json(SweepSummary, content)


def _refuse_constant(text: str) -> float:
    """For `NaN` and `Infinity`, which Python's parser accepts though JSON has no such numbers."""
    raise ValueError(f"{text} is no number of JSON")


def no_sweep(where: object, lacks: str = "summary.json") -> SweepError:
    """The error for a folder or an address without a sweep. lacks: the file that was looked for."""
    return SweepError(
        "there is no sweep in {seen}",
        rule=f"a sweep's folder holds a {lacks}",
        seen=str(where),
        fix="name the folder that `run` made",
    )
