"""The finalists of a sweep: the best trials measured again, and trained again with other seeds.

Owns: how many samples a final takes, what a finalist's run is, which finalist wins. Refuses: the search,
and where the work runs (`pipeline.cluster.worker`).

A search looks at many noisy numbers and keeps the smallest: its own minimum is too good (the winner's
curse). So nothing of it counts here. Every finalist is measured with fresh latents and more samples; where
there is time its configuration is trained again with other seeds, and the mean over the seeds decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import GansweepError
from pipeline.metrics import evaluation
from pipeline.metrics.evaluation import Measurement
from pipeline.metrics.frechet import Evaluator
from pipeline.training import sampling, trial
from pipeline.training.checkpoint import best_generator, load_best

GROWTH = 2.5
"""Samples of a final over those of a fid in the search: 5,000 by default."""
PATIENT_SEC = 600.0
"""A search that may take longer can afford to train its finalists again."""
OTHER_SEEDS = 2


@dataclass(frozen=True)
class FinalistRun:
    """One training of a finalist's configuration. index: 0 = the trial itself, else its other seeds.

    search_fid: the best of its ticks, as the search sees it. fresh_fid: mean of fids just like it with
    fresh latents; their difference is luck. record: of its best tick. problem: why there is no measurement.
    """

    trial: int
    index: int
    folder: Path
    seed: int = 0
    record: dict[str, Any] | None = None
    fresh_fid: float | None = None
    measurement: Measurement | None = None
    problem: str = ""

    @property
    def search_fid(self) -> float | None:
        return None if self.record is None else self.record["fid"]

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Sorts honest runs before others, low fids before high ones."""
        found = self.measurement
        return found is None, bool(found and found.verdicts), found.fid if found else math.inf

    def row(self) -> dict[str, Any]:
        """What a table shows of it: plain values."""
        found = self.measurement
        return {
            "seed": self.seed,
            "kimg": self.record["kimg"] if self.record else None,
            "search_fid": self.search_fid,
            "fresh_fid": self.fresh_fid,
            "fid": found.fid if found else None,
            "fid_low": found.fid_low if found else None,
            "fid_high": found.fid_high if found else None,
            "verdicts": list(found.verdicts) if found else [],
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Finalist:
    """A finalist: its runs, the trial itself first; at least one of them was measured."""

    trial: int
    runs: tuple[FinalistRun, ...]

    @property
    def chosen(self) -> FinalistRun:
        """The run whose generator stands for the configuration: honest, and the best of them."""
        return min(self.runs, key=lambda run: run.rank)

    @property
    def fids(self) -> list[float]:
        """The final fids of those runs that have one."""
        return [run.measurement.fid for run in self.runs if run.measurement]

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Sorts by verdict, then by how many seeds came to nothing, then by the mean over the seeds."""
        return self.chosen.rank[1], len(self.runs) - len(self.fids), float(np.mean(self.fids))

    def row(self) -> dict[str, Any]:
        """The finalist as plain values: `best` (the chosen run), every run, the chosen one's measurement."""
        chosen = self.chosen
        record, measured = chosen.record, chosen.measurement
        assert record is not None
        assert measured is not None
        best = {
            "trial": self.trial,
            "trial_seed": chosen.seed,
            "fid": measured.fid,
            "fid_mean": float(np.mean(self.fids)),
            "fid_std": float(np.std(self.fids, ddof=1)) if len(self.fids) > 1 else None,
            "search_fid": chosen.search_fid,
            "fresh_fid": chosen.fresh_fid,
            "gap": _gap(chosen),
            "balance": record["balance"],
            "kimg": record["kimg"],
        }
        return {"best": best, "runs": [r.row() for r in self.runs], "measurement": measured.to_dict()}


def _gap(run: FinalistRun) -> float | None:
    """How much better the search saw a run than it is, at the search's own number of samples."""
    return None if None in (run.fresh_fid, run.search_fid) else run.fresh_fid - run.search_fid  # type: ignore[operator]


def samples_of(evaluator: Evaluator, asked: int = 0) -> int:
    """Samples of a final measurement: as asked, else `GROWTH` times the search's."""
    return max(asked or round(GROWTH * evaluator.samples), evaluation.FEWEST)


def seeds_of(asked: int, time_budget_sec: float, spent_sec: float) -> int:
    """How many other seeds a finalist is trained with: as asked; -1 = 2 where the search is a long one."""
    if asked >= 0:
        return asked
    return OTHER_SEEDS if (time_budget_sec or spent_sec) > PATIENT_SEC else 0


def retrain(
    original: Path,
    run: FinalistRun,
    kimg: int,
    dataset: Dataset,
    evaluator: Evaluator,
    *,
    device: str,
    threads: int,
    should_stop: Callable[[], bool],
    each: Callable[[], object] = lambda: None,
) -> None:
    """Train the configuration of the trial in `original` with another seed for `kimg`, into `run.folder`.

    each: called after every tick. Goes on where it was interrupted. A cosine schedule keeps the length that
    the trial was given.
    """
    config = TrialConfig.from_dict(load_best(original)["config"])
    ticks = trial.run_trial(
        replace(config, seed=other_seed(config.seed, run.index)), dataset, evaluator, run.folder,
        number=run.trial, device=device, threads=threads, should_stop=should_stop,
    )  # fmt: skip
    for record in ticks:
        each()
        if record.kimg >= kimg:
            return


def other_seed(seed: int, index: int) -> int:
    """The `index`-th other seed (from 1) of a configuration that was trained with `seed`."""
    return int(np.random.SeedSequence((seed, index)).generate_state(1)[0])


def measure_finalist(
    run: FinalistRun, dataset: Dataset, evaluator: Evaluator, *, n: int, seed: int, device: str
) -> FinalistRun:
    """The run with its measurement: n fresh samples, and the search's fid with fresh latents beside it.

    Never raises for what is wrong with the run: that is its `problem`.
    """
    try:
        generator, best = best_generator(run.folder)
        sample = sampling.labelled_sampler(generator.to(torch.device(device)), dataset)
        found = evaluation.measure_generator(sample, dataset, evaluator, n=n, seed=seed)
        again = [
            evaluator.score(sampling.sampler(generator, dataset, seed=_fresh(seed, i)))
            for i in range(evaluation.REPEATS)
        ]
    except GansweepError as error:
        return replace(run, problem=str(error))
    known = [fid for fid in again if fid is not None]
    return replace(
        run,
        seed=best["config"]["seed"],
        record=best["record"],
        fresh_fid=float(np.mean(known)) if known else None,
        measurement=found,
    )


def _fresh(seed: int, i: int) -> int:
    """Latents that neither the search nor the measurement has seen."""
    return int(np.random.SeedSequence((seed, i, sampling.EVALUATION_SEED)).generate_state(1)[0])


def choose_winner(runs: Sequence[FinalistRun]) -> list[Finalist]:
    """The finalists that could be measured, the winner first; those with verdicts come after all others."""
    trials = {run.trial: [r for r in runs if r.trial == run.trial] for run in runs}
    finals = [Finalist(number, tuple(sorted(own, key=lambda r: r.index))) for number, own in trials.items()]
    return sorted((final for final in finals if final.fids), key=lambda final: final.rank)
