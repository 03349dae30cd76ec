"""The search: one Optuna study, seen by Ray as its Searcher and as its TrialScheduler.

Owns: `Ledger` (ask, report, finish: every trial told once; ledger), samplers and pruners (study), the
study's file (journal), which trials are silent for too long (watch), the thin Ray classes over them
(on_ray). Refuses: names of hyper-parameters, MLflow, files other than the study's and a trial's failures.

The study is the single truth; Ray remembers nothing. A ledger opened on a study that already has trials
hands out those still RUNNING first, under their own number, and then asks for new ones up to the limit.

Fidelity: Optuna sees the objective, the best fid so far, at every tick (step = kimg). A trial that ran to
its end is COMPLETE with it; one that was stopped is PRUNED, which TPE ranks by how far it came.
NaN policy: an objective is always finite (`pipeline.records`), so none is lost to the study.
"""

from pipeline.search.ledger import STATES, Entry, Ledger, Listener, rank
from pipeline.search.on_ray import (
    GONE,
    StudyCallback,
    StudyScheduler,
    StudySearcher,
    StudyStopper,
    cause_of,
)
from pipeline.search.study import draw, make_pruner, make_sampler, open_study
from pipeline.search.watch import bound_sec

__all__ = [
    "GONE",
    "STATES",
    "Entry",
    "Ledger",
    "Listener",
    "StudyCallback",
    "StudyScheduler",
    "StudySearcher",
    "StudyStopper",
    "bound_sec",
    "cause_of",
    "draw",
    "make_pruner",
    "make_sampler",
    "open_study",
    "rank",
]
