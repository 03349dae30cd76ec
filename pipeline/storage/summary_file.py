"""The content of summary.json: its one definition, from which writer, reader and schema come.

`pipeline.reporting.summary` fills it in while a sweep runs. A number that is unknown or not finite is None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pipeline.errors import SweepError
from pipeline.records import TrialRecord
from pipeline.storage.readable import finite, readable_percent
from pipeline.storage.typed_json import from_json, key, schema_of, to_json, whole

ParamValue: TypeAlias = int | float | str | bool | None
Params: TypeAlias = Mapping[str, ParamValue]
SweepState: TypeAlias = Literal["running", "finished", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class TrialCounts:
    """How many trials are in each state."""

    failed: int = key("ended by failures")
    pruned: int = key("stopped early by the pruner")
    complete: int = key("trained to their end")
    running: int = key("running now")

    @property
    def ended(self) -> int:
        return self.failed + self.pruned + self.complete


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best trial."""

    trial: int = key("number of the trial")
    fid: float = key("the lowest of its ticks; of a finalist, that of the final measurement")
    balance: float | None = key("at the tick of its best fid: 1 = D at chance, 0 = one side has won")
    kimg: float | None = key("length of its training at the tick of its best fid", "kimg")
    params: Params = key("the searched hyper-parameters")


@dataclass(frozen=True, kw_only=True)
class FinalistBest(Best):
    """The best run of a finalist."""

    search_fid: float = key("the lowest fid of its ticks during the search")
    trial_seed: int | None = key("seed that the run was trained with", default=None)
    fid_mean: float | None = key("mean fid over the seeds that were measured", default=None)
    fid_std: float | None = key("standard deviation over them; null for a single one", default=None)
    fresh_fid: float | None = key("mean of fids measured as in the search, with fresh latents", default=None)
    gap: float | None = key("fresh_fid - search_fid", default=None)


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow:
    """A trial: its numbers at the tick of its best fid, and how it ended."""

    trial: int = key("number of the trial")
    state: str = key("running, complete, pruned or failed")
    fid: float | None = key("the lowest of its ticks")
    balance: float | None = key("at that tick: 1 = D at chance, 0 = one side has won")
    auc: float | None = key("at that tick: P(D(real) > D(fake)) on held-out reals", default=None)
    kimg: float | None = key("length of its training at that tick", "kimg")
    last_kimg: float = key("length of its training so far", "kimg", default=0)
    verdict: str = key("of its last tick: healthy, d_wins, g_wins, collapsed or diverged", default="")
    stability: float | None = key("last fid / best fid: 1 = the best one is the last", default=None)
    params: Params = key("the searched hyper-parameters")
    cause: str = key("why it ended early; empty if it did not", default="")

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
    """A trial that runs."""

    trial: int = key("number of the trial")
    fid: float | None = key("the lowest of its ticks")
    balance: float | None = key("at that tick")
    last_kimg: float = key("length of its training so far", "kimg")
    verdict: str = key("of its last tick")


@dataclass(frozen=True, kw_only=True)
class FailureRow:
    """A failure of a trial, which may have been restarted after it."""

    trial: int = key("number of the trial")
    index: int = key("counts the failures of the trial", default=0)
    kind: str = key("exception, out of memory, worker killed, hang, ...")
    text: str = key("one line for people")
    kimg: int = key("length of the training before the failure", "kimg", default=0)

    def __str__(self) -> str:
        return f"{self.kind} after {self.kimg} kimg: {self.text}"


@dataclass(frozen=True, kw_only=True)
class FinalistRunRow:
    """One training of a finalist's configuration, measured again."""

    seed: int | None = key("seed that the run was trained with", default=None)
    kimg: float | None = key("length of its training at its best fid", "kimg", default=None)
    search_fid: float | None = key("the lowest fid of its ticks", default=None)
    fresh_fid: float | None = key("mean of fids measured as in the search, with fresh latents", default=None)
    fid: float | None = key("of the final measurement")
    fid_low: float | None = key("lower end of the 95 % interval of fid", default=None)
    fid_high: float | None = key("upper end of it", default=None)
    verdicts: tuple[str, ...] = key("why the run may not be promoted; empty = it may", default=())
    problem: str = key("why there is no measurement; empty = there is one", default="")


@dataclass(frozen=True, kw_only=True)
class FinalMeasurement:
    """What was measured of a finalist's best run."""

    n: int = key("number of generated images", "images")
    fid: float | None = key("Frechet distance to the training reals", default=None)
    fid_low: float = key("lower end of the 95 % interval of fid")
    fid_high: float = key("upper end of it")
    verdicts: tuple[str, ...] = key("why the run may not be promoted; empty = it may")
    values: Mapping[str, object] = whole(keys_of="pipeline.metrics.measurement:Measurement")


@dataclass(frozen=True, kw_only=True)
class FinalistRow:
    """A finalist."""

    best: FinalistBest = key("its best run")
    runs: tuple[FinalistRunRow, ...] = key("all its runs, the trial itself first", default=())
    measurement: FinalMeasurement = key("the measurement of its best run")


@dataclass(frozen=True, kw_only=True)
class SecondOpinion:
    """What an extractor that took no part in the search says of the winner."""

    extractor: str = key("name of the second extractor")
    hash: str = key("of its evaluator")
    samples: int = key("generated images of each finalist", "images")
    trial: int = key("number of the finalist with the lowest fid in it")
    agrees: bool = key("false where that is another one, and their intervals are apart in both extractors")
    text: str = key("one line for people")

    def __str__(self) -> str:
        return f"{self.extractor}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class FidEvaluator:
    """What the fids of a sweep were measured with."""

    extractor: str = key("name of the extractor", default="")
    hash: str = key(
        "of extractor, reference images and samples: fids compare only where it is the same", default=""
    )
    samples: int = key("generated images per fid", "images", default=0)


@dataclass(frozen=True, kw_only=True)
class ExpectedGain:
    """What one more hour of search should bring (`pipeline.search.expected_gain`)."""

    trials: int = key("ended trials with a fid, from which it is estimated", "trials")
    needed: int = key("so many are needed", "trials")
    trials_per_hour: float | None = key("how many of them end in an hour", default=None)
    gain: float | None = key(
        "expected fall of the best fid, as a fraction of it; null = not known yet", default=None
    )
    chance: float | None = key("probability that the best fid falls at all", default=None)
    fid: float | None = key("the best fid that is expected then", default=None)
    plateau: float | None = key(
        "the highest gain expected in the last quarter of the trials, which --until-plateau bounds",
        default=None,
    )

    def __str__(self) -> str:
        """`best fid -3 % (about 12.1), 60 % chance of any gain`."""
        if self.gain is None or self.chance is None or self.fid is None:
            few = self.trials < self.needed
            return f"not known yet ({self.trials} of {self.needed} trials with a fid)" if few else "not known"
        fall, chance = readable_percent(self.gain), readable_percent(self.chance, whole=True)
        return f"best fid -{fall} (about {self.fid:.4g}), {chance} chance of any gain"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry."""

    name: str = key("name of the registered model")
    version: int | str = key("number of the version")
    alias: str | None = key("the one it was given or holds; null = none")
    uri: str = key("address of the version in the registry")
    reason: str = key("why it has that alias, or none", default="")

    @property
    def model(self) -> str:
        """The address to load it by: of its alias if it has one."""
        return f"models:/{self.name}@{self.alias}" if self.alias else self.uri


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """summary.json."""

    name: str = key("name of the sweep")
    state: SweepState = key("running, finished, interrupted or failed")
    reason: str = key(
        "for people: why the search ended before its last trial; empty if it did not", default=""
    )
    stopped_by: str | None = key("name of the limit that ended the search; null = none did", default=None)
    wall_seconds: float = key("length of the search, earlier processes included", "seconds")
    kimg_total: float = key("thousands of real images shown to D by all trials", "kimg")
    trials: TrialCounts = key("how many trials are in each state")
    trials_asked: int = key("trials to run", "trials", default=0)
    time_budget_sec: float = key("limit of the search; 0 = none", "seconds", default=0.0)
    gpu_hours: float = key("used by all trials so far", "GPU hours", default=0.0)
    cost: float | None = key("of all trials so far; null without --price", "as --price", default=None)
    best: FinalistBest | Best | None = key(
        "the best finalist; before the finalists are measured, the trial with the lowest fid"
    )
    running: tuple[RunningRow, ...] = key("the trials that run", default=())
    one_more_hour: ExpectedGain | None = key(
        "what one more hour of search should bring, at the last end of a trial; null = an older sweep",
        default=None,
    )
    disk_bytes: float = key("size of the sweep's folder", "bytes", default=0)
    images_per_sec: float = key(
        "real images shown to D per second, by all running trials", "images/s", default=0.0
    )
    failures: tuple[FailureRow, ...] = key("every failure of a trial", default=())
    leaderboard: tuple[LeaderboardRow, ...] = key("the best hundred trials, best first")
    registered: RegisteredVersion | None = key("the version in the registry; null = none", default=None)
    evaluator: FidEvaluator = key("what the fids were measured with", default=FidEvaluator())
    finalists: tuple[FinalistRow, ...] = key("best first; empty before they are measured", default=())
    second_opinion: SecondOpinion | None = key(
        "on the first finalist; null = there is no second extractor", default=None
    )

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
