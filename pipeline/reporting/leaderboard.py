"""The trials of a sweep as rows of text: best first, with one text for every number.

Owns: `COLUMNS` and what each means. Refuses: reading files, markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.records import METRICS, VERDICTS
from pipeline.reporting import history
from pipeline.reporting.history import TrialView, differing_params, short_number

# Columns of the leaderboard: what each means where it is no metric of `records`.
COLUMNS: dict[str, str] = {
    "trial": "Optuna's number of the trial",
    "state": "complete, pruned (stopped early), failed or running",
    "fid": "best_fid: " + METRICS["best_fid"][1],
    "balance": METRICS["balance"][1] + "; at the best fid",
    "auc": METRICS["auc"][1] + "; at the best fid",
    "kimg": "thousands of real images shown to D when the best fid was measured",
    "last kimg": "thousands of real images shown to D so far",
    "stability": "last fid / best fid: 1 = it ended at its best, 1.5 = it lost half again",
    "verdict": f"what the last tick looked like: {', '.join(VERDICTS)}",
    "cause": "why it failed or was stopped",
    "params": "the hyper-parameters in which the trials differ",
}
FORMATS = {"fid": ".4g", "balance": ".2f", "auc": ".2f", "stability": ".2f"}
_FIELDS = {"trial": "number", "last kimg": "last_kimg"}
_TEXT_COLUMNS = ("trial", "state", "fid", "balance", "kimg", "stability", "verdict", "params")


def text_table(summary: Mapping[str, Any], limit: int = 10) -> list[list[str]]:
    """The leaderboard for a terminal: a header row, then at most `limit` trials, best first.

    The texts come from the sweep's files: a caller that draws with markup must escape them.
    """
    trials = history.trial_views(summary)
    differing = differing_params(trials)
    return [list(_TEXT_COLUMNS), *(_texts(told, _TEXT_COLUMNS, differing) for told in trials[:limit])]


def value_of(told: TrialView, column: str) -> Any:
    """What `told` has in `column`; None where it is not known."""
    return getattr(told, _FIELDS.get(column, column))


def cell_text(told: TrialView, column: str, differing: Sequence[str]) -> str:
    """What a table shows of `told` in `column`; "-" where it is not known."""
    value = value_of(told, column)
    if column == "params":
        return " ".join(f"{name}={short_number(value[name])}" for name in differing if name in value)
    if value is None:
        return "-"
    return format(value, FORMATS[column]) if column in FORMATS else str(value)


def _texts(told: TrialView, columns: Iterable[str], differing: Sequence[str]) -> list[str]:
    return [cell_text(told, column, differing) for column in columns]
