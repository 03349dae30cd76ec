"""A trial manager on a real Optuna journal, driven without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import factories

from pipeline.config import SweepConfig, SweepPaths
from pipeline.records import TrialRecord, objective_of
from pipeline.search.space.definition import Space
from pipeline.search.space.parser import parse_space
from pipeline.search.study import open_study
from pipeline.search.trial_manager import SweepCallback, TrialManager

SPACE = parse_space(
    """
    [fixed]
    kimg = 30
    tick_kimg = 1
    [search]
    lr_g = { float = [1e-5, 1e-2], log = true }
    penalty = { choice = ["none", "r1"] }
    gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1"] } }
    [[enqueue]]
    lr_g = 2e-4
    penalty = "r1"
    gamma = 0.5
    """
)


def make_manager(
    root: Path, *callbacks: SweepCallback, spent_sec: float = 0.0, space: Space = SPACE, **options: Any
) -> TrialManager:
    """The manager of the sweep in `root`, new or reopened; options: fields of SweepConfig."""
    config = SweepConfig(**{"trials": 20, "pruner": "none", **options})
    paths = SweepPaths(root)
    study = open_study("s", paths.study, config, space)
    manager = TrialManager(study, space, config, paths, spent_sec=spent_sec)
    manager.begin(callbacks)
    return manager


def tick(trial: int, kimg: int, fid: float | None, **changes: Any) -> TrialRecord:
    """A healthy tick of a trial whose fid is the best so far."""
    return factories.record(kimg, fid, **{"trial": trial, "objective": objective_of(fid), **changes})
