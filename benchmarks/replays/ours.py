"""Our own search in a replay: the product's study, sampler, pruner and `TrialManager`, unchanged."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import SweepConfig, SweepPaths
from pipeline.records import PENALTY, TrialRecord
from pipeline.search.space.definition import Space
from pipeline.search.study import open_study
from pipeline.search.trial_manager import TrialManager
from replays.clock import Job, Report

MANY = 1_000_000
_ZEROS = dict.fromkeys(
    ("auc", "overfit", "score_real", "score_fake", "sign_real", "sign_fake", "accuracy_real", "accuracy_fake")
    + ("loss_d", "loss_g", "penalty", "grad_norm_d", "grad_norm_g", "augment_p", "control", "images_per_sec"),
    0.0,
)
_DISK = Path("/dev/shm")  # a journal in memory: a replay writes thousands of lines a second


class OurSearch:
    """A `replays.clock.Search`. options: of `SweepConfig`, such as sampler and pruner. points: enqueued."""

    def __init__(
        self, space: Space, seed: int, options: Mapping[str, Any], points: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        space = Space(space.fixed, space.search, tuple(points))
        self._folder = Path(tempfile.mkdtemp(prefix="replay-", dir=_DISK if _DISK.is_dir() else None))
        paths = SweepPaths(self._folder / "sweep")
        paths.root.mkdir()
        config = SweepConfig(**{"trials": MANY, "seed": seed, **options})
        study = open_study("replay", paths.root / "study.journal", config, space)
        self.manager = TrialManager(study, space, config, paths)
        self.manager.begin(())
        self._full = space.config({}).kimg
        self._best: dict[int, tuple[float, int]] = {}

    def ask(self) -> Job | None:
        trial = self.manager.ask()
        return None if trial is None else Job(trial.number, trial.params, self._full)

    def report(self, report: Report) -> bool:
        number, fid = report.job.trial, report.fid
        if fid is not None and fid < self._best.get(number, (PENALTY, 0))[0]:
            self._best[number] = (fid, report.kimg)
        best, best_kimg = self._best.get(number, (None, None))
        verdict = "diverged" if fid is None else report.verdict
        record = TrialRecord(
            trial=number,
            kimg=report.kimg,
            verdict=verdict,
            objective=PENALTY if best is None else best,
            fid=fid,
            best_fid=best,
            best_kimg=best_kimg,
            balance=report.balance,
            diversity=1.0,
            train_seconds=report.seconds,
            eval_seconds=0.0,
            **_ZEROS,
        )
        return self.manager.report(record)

    def done(self, job: Job) -> None:
        self.manager.finish(job.trial)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
