"""The trials of a sweep as rows of text, best first: the columns, their meaning and their number formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.records import METRICS, VERDICTS
from pipeline.reporting.history import TrialView, differing_params, trial_views
from pipeline.storage.readable import short_number
from pipeline.storage.summary_file import SweepSummary

COLUMNS: dict[str, str] = {
    "trial": "Optuna's number of the trial",
    "state": "complete, pruned (stopped early), failed or running",
    "fid": "best_fid: " + METRICS["best_fid"].meaning,
    "balance": METRICS["balance"].meaning + "; at the best fid",
    "auc": METRICS["auc"].meaning + "; at the best fid",
    "kimg": "thousands of real images shown to D when the best fid was measured",
    "last kimg": "thousands of real images shown to D so far",
    "stability": "last fid / best fid: 1 = it ended at its best, 1.5 = it lost half again",
    "verdict": f"what the last tick looked like: {', '.join(VERDICTS)}",
    "cause": "why it failed or was stopped",
    "params": "the hyper-parameters in which the trials differ",
}
"""The meaning of each column of the leaderboard."""

FORMATS = {"fid": ".4g", "balance": ".2f", "auc": ".2f", "stability": ".2f"}
_TEXT_COLUMNS = ("trial", "state", "fid", "balance", "kimg", "stability", "verdict", "params")


def text_table(summary: SweepSummary, limit: int = 10) -> list[list[str]]:
    """The leaderboard for a terminal: a header row, then at most `limit` trials, best first.

    The texts come from the sweep's files: a caller that prints them with markup must escape them.
    """
    trials = trial_views(summary)
    differing = differing_params(trials)
    rows = [[cell_text(trial, column, differing) for column in _TEXT_COLUMNS] for trial in trials[:limit]]
    return [list(_TEXT_COLUMNS), *rows]


def value_of(trial: TrialView, column: str) -> Any:
    """The trial's value in `column`; None if it is unknown."""
    return getattr(trial, column.replace(" ", "_"))


def cell_text(trial: TrialView, column: str, differing: Sequence[str]) -> str:
    """The text of the trial's cell in `column`; "-" if the value is unknown.

    differing: the hyper-parameters that the column `params` lists.
    """
    value = value_of(trial, column)
    if column == "params":
        return " ".join(f"{name}={short_number(value[name])}" for name in differing if name in value)
    if value is None:
        return "-"
    return format(value, FORMATS[column]) if column in FORMATS else str(value)
