"""The finalists of a sweep: the best trials measured again, and trained again with other seeds.

A search compares many noisy numbers and keeps the smallest, so its own minimum is too good (the winner's
curse). Therefore no number of the search counts here. Every finalist is measured with fresh latents and more
samples; where there is time, its configuration is trained again with other seeds, and the mean over the seeds
decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import GansweepError
from pipeline.metrics import evaluation
from pipeline.metrics.frechet import Evaluator
from pipeline.metrics.measurement import Measurement
from pipeline.records import TrialRecord
from pipeline.storage.summary_file import (
    FinalistBest,
    FinalistRow,
    FinalistRunRow,
    FinalMeasurement,
    ParamValue,
)
from pipeline.storage.typed_json import from_json
from pipeline.training.checkpoint import best_generator, load_best
from pipeline.training.sampling import image_sampler, labelled_image_sampler
from pipeline.training.seeds import extra_seed, fresh_seed
from pipeline.training.trial import TrialSettings, run_trial

FINAL_SAMPLES_FACTOR = 2.5
"""Samples of a final measurement over those of a fid in the search: 5,000 by default."""
LONG_SEARCH_SEC = 600.0
"""A search that may take longer has time to train its finalists again."""


@dataclass(frozen=True)
class FinalistRun:
    """One training of a finalist's configuration.

    index: 0 = the trial itself, above 0 = a training with another seed. folder: of its files. record: of its
    best tick. fresh_fid: mean of fids of as many samples as in the search, with fresh latents; its difference
    from `search_fid` is the selection bias of the search. problem: why there is no measurement.
    """

    trial: int
    index: int
    folder: Path
    seed: int = 0
    record: TrialRecord | None = None
    fresh_fid: float | None = None
    measurement: Measurement | None = None
    problem: str = ""

    @property
    def search_fid(self) -> float | None:
        """The best fid of its ticks, as the search measures it."""
        return None if self.record is None else self.record.fid

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Sort key: runs without a measurement last, runs with verdicts before them, then by fid."""
        measured = self.measurement
        return measured is None, bool(measured and measured.verdicts), measured.fid if measured else math.inf

    def row(self) -> FinalistRunRow:
        """The run in summary.json."""
        row = FinalistRunRow(
            seed=self.seed,
            kimg=self.record.kimg if self.record else None,
            search_fid=self.search_fid,
            fresh_fid=self.fresh_fid,
            fid=None,
            problem=self.problem,
        )
        found = self.measurement
        if found is None:
            return row
        low, high, verdicts = found.fid_low, found.fid_high, tuple(found.verdicts)
        return replace(row, fid=found.fid, fid_low=low, fid_high=high, verdicts=verdicts)


@dataclass(frozen=True)
class Finalist:
    """A finalist with its runs, the trial itself first; at least one of them was measured."""

    trial: int
    runs: tuple[FinalistRun, ...]

    @property
    def chosen(self) -> FinalistRun:
        """The best run, if possible one without verdicts: its generator represents the configuration."""
        return min(self.runs, key=lambda run: run.rank)

    @property
    def fids(self) -> list[float]:
        """The final fids of those runs that were measured."""
        return [run.measurement.fid for run in self.runs if run.measurement]

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Sort key: finalists with verdicts last, then by the number of failed runs, then by the mean fid."""
        return self.chosen.rank[1], len(self.runs) - len(self.fids), float(np.mean(self.fids))

    def row(self, params: Mapping[str, ParamValue]) -> FinalistRow:
        """The finalist in summary.json. params: of its configuration."""
        chosen = self.chosen
        record, measured = chosen.record, chosen.measurement
        assert measured is not None
        assert record is not None
        assert record.fid is not None  # a best generator is of a tick with a fid
        best = FinalistBest(
            trial=self.trial,
            trial_seed=chosen.seed,
            fid=measured.fid,
            fid_mean=float(np.mean(self.fids)),
            fid_std=float(np.std(self.fids, ddof=1)) if len(self.fids) > 1 else None,
            search_fid=record.fid,
            fresh_fid=chosen.fresh_fid,
            gap=None if chosen.fresh_fid is None else chosen.fresh_fid - record.fid,
            balance=record.balance,
            kimg=record.kimg,
            params=params,
        )
        return FinalistRow(
            best=best,
            runs=tuple(run.row() for run in self.runs),
            measurement=from_json(FinalMeasurement, measured.to_dict()),
        )


def final_samples(evaluator: Evaluator, requested: int = 0) -> int:
    """Samples of a final measurement: as requested, else `FINAL_SAMPLES_FACTOR` times the search's."""
    return max(requested or round(FINAL_SAMPLES_FACTOR * evaluator.samples), evaluation.MIN_SAMPLES)


def extra_seed_count(requested: int, time_budget_sec: float, spent_sec: float) -> int:
    """How many other seeds a finalist is trained with: as requested; -1 = 2 after a long search, else 0.

    A search is long if its time budget, or without one its duration, is over `LONG_SEARCH_SEC` seconds.
    """
    if requested >= 0:
        return requested
    return 2 if (time_budget_sec or spent_sec) > LONG_SEARCH_SEC else 0


def retrain(
    original: Path,
    run: FinalistRun,
    kimg: int,
    dataset: Dataset,
    evaluator: Evaluator,
    settings: TrialSettings,
    on_tick: Callable[[], object] = lambda: None,
) -> None:
    """Train the configuration of the trial in `original` with another seed for `kimg`, into `run.folder`.

    Resumes after an interruption. A cosine schedule keeps the length that it had in the original trial.
    on_tick: called after every tick.
    """
    config = TrialConfig.from_dict(load_best(original)["config"])
    records = run_trial(
        replace(config, seed=extra_seed(config.seed, run.index)), dataset, evaluator, run.folder,
        replace(settings, number=run.trial),
    )  # fmt: skip
    for record in records:
        on_tick()
        if record.kimg >= kimg:
            return


def measure_finalist(
    run: FinalistRun,
    dataset: Dataset,
    evaluator: Evaluator,
    *,
    n: int,
    seed: int,
    device: str,
    on_progress: Callable[[], object] = lambda: None,
) -> FinalistRun:
    """The run with its measurement: of n fresh samples, and the search's fid repeated with fresh latents.

    evaluator: its `second`, if any, is on `device` only as long as this takes. on_progress: called from time
    to time. Raises no GansweepError: a run that cannot be measured gets a `problem` instead.
    """
    try:
        generator, best = best_generator(run.folder)
        sample = labelled_image_sampler(generator.to(torch.device(device)), dataset)
        moved = replace(evaluator, second=evaluator.second and evaluator.second.to(device))
        measured = evaluation.measure_generator(
            sample, dataset, moved, n=n, seed=seed, on_progress=on_progress
        )
        scores = [
            evaluator.score(image_sampler(generator, dataset, seed=fresh_seed(seed, i)))
            for i in range(evaluation.REPEATS)
        ]
    except GansweepError as error:
        return replace(run, problem=str(error))
    fids = [fid for fid in scores if fid is not None]
    return replace(
        run,
        seed=TrialConfig.from_dict(best["config"]).seed,
        record=TrialRecord.from_dict(best["record"]),
        fresh_fid=float(np.mean(fids)) if fids else None,
        measurement=measured,
    )


def choose_winner(runs: Sequence[FinalistRun]) -> list[Finalist]:
    """The finalists that were measured, the winner first; those with verdicts come after all others."""
    by_trial = {run.trial: [r for r in runs if r.trial == run.trial] for run in runs}
    finalists = [
        Finalist(number, tuple(sorted(group, key=lambda r: r.index))) for number, group in by_trial.items()
    ]
    return sorted((finalist for finalist in finalists if finalist.fids), key=lambda finalist: finalist.rank)
