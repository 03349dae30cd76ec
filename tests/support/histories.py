"""Makers of a sweep's history: trials with made-up records, beside a winner with fid 19.9."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import factories
from sweep_folders import summary_of

from pipeline.reporting.history import History, TrialView
from pipeline.search.space.parser import parse_space

SPACE = parse_space(
    """
[fixed]
kimg = 40
[search]
lr_g = { float = [1e-4, 1e-2], log = true }
lr_d = { float = [1e-4, 1e-2], log = true }
width_g = { int = [8, 64], log = true }
loss = { choice = ["nonsaturating", "hinge", "minimax"] }
penalty = { choice = ["none", "r1"] }
gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1"] } }
"""
)
POINT = {"lr_g": 1e-3, "lr_d": 1e-3, "width_g": 20, "loss": "hinge", "penalty": "r1", "gamma": 1.0}


def trial_view(number: int, fids: list[float], state: str = "complete", **changes: Any) -> TrialView:
    """A trial with a tick every ten kimg.

    `last` among the changes are fields of its last record, all others are fields of `TrialView`.
    """
    last = changes.pop("last", {})
    best = list(itertools.accumulate(fids, min))
    records = [
        factories.record(10 * (i + 1), fid, best_fid=best[i], objective=best[i], grad_norm_g=1.0)
        for i, fid in enumerate(fids)
    ]
    records[-1] = dataclasses.replace(records[-1], **last)
    fields: dict[str, Any] = {
        "fid": best[-1], "balance": 0.5, "auc": 0.75, "kimg": 10 * (fids.index(best[-1]) + 1),
        "last_kimg": 10 * len(fids), "stability": fids[-1] / best[-1], "verdict": records[-1].verdict,
        "params": POINT,
    }  # fmt: skip
    return TrialView(trial=number, state=state, records=tuple(records), **{**fields, **changes})


def bare_trial(number: int, state: str = "", cause: str = "", **changes: Any) -> TrialView:
    """A trial without records."""
    fields: dict[str, Any] = {"fid": None, "balance": None, "kimg": None, "params": {}, **changes}
    return TrialView(trial=number, state=state, cause=cause, **fields)


def history_of(*trials: TrialView, space: Any = SPACE, **summary: Any) -> History:
    """A history of these trials, best first; `summary`: keys of summary.json."""
    ordered = sorted(trials, key=lambda trial: (trial.fid is None, trial.fid or 0.0))
    content = summary_of(**{"name": "tiny", "best": None, **summary})
    return History(Path("tiny"), content, tuple(ordered), {}, space)


def finished_sweep(*others: TrialView, **summary: Any) -> History:
    """A finished sweep that trial 0 has won with fid 19.9, and `others`."""
    winner = trial_view(0, [40.0, 30.0, 20.0, 19.9])
    return history_of(winner, *others, **{"state": "finished", **summary})


def best_of(trial: int, fid: float = 19.9) -> dict[str, Any]:
    """The `best` of summary.json: this trial at 40 kimg."""
    return {"trial": trial, "fid": fid, "balance": 0.5, "kimg": 40, "params": {}}


def finalist_row(trial: int, fid: float, low: float, high: float) -> dict[str, Any]:
    """A finalist of summary.json, measured with 5000 samples."""
    measurement = {"fid": fid, "fid_low": low, "fid_high": high, "n": 5000, "verdicts": []}
    return {"best": {**best_of(trial, fid), "search_fid": fid - 0.5}, "measurement": measurement}
