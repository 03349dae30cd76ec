"""The trials of a sweep as rows: best first, with one text for every number.

Owns: `COLUMNS` and what each means, the merging of summary.json with the trials' own records.
Refuses: drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from pipeline.checkpoint import read_records
from pipeline.records import METRICS, VERDICTS, TrialRecord

Row = dict[str, Any]

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
    "params": "the hyper-parameters in which the trials differ",
    "cause": "why it failed or was stopped",
}
FORMATS = {"fid": ".4g", "balance": ".2f", "auc": ".2f", "stability": ".2f"}
_TEXT_COLUMNS = ("trial", "state", "fid", "balance", "kimg", "stability", "verdict", "params")


def text_table(summary: Mapping[str, Any], limit: int = 10) -> list[list[str]]:
    """The leaderboard for a terminal: a header row, then at most `limit` trials, best first.

    The texts come from the sweep's files: a caller that draws with markup must escape them.
    """
    rows = leaderboard_rows(summary)
    differing = differing_params(rows)
    return [list(_TEXT_COLUMNS), *(_texts(row, _TEXT_COLUMNS, differing) for row in rows[:limit])]


def leaderboard_rows(
    summary: Mapping[str, Any],
    records: Mapping[int, Sequence[TrialRecord]] | None = None,
    study: optuna.Study | None = None,
) -> list[Row]:
    """All trials, best fid first, those without one last.

    summary.json lists the first hundred; trials that it leaves out are told by their records and
    by the study. Keys of a row: those of `COLUMNS`, with params a dict; unknown values are None.
    """
    listed = [row for row in summary.get("leaderboard") or [] if isinstance(row, dict)]
    rows = {int(row["trial"]): _row(row) for row in listed if isinstance(row.get("trial"), int)}
    told = {trial.number: trial for trial in study.get_trials(deepcopy=False)} if study else {}
    for number, trial_records in (records or {}).items():
        if number not in rows:
            rows[number] = _row_of(number, trial_records, told.get(number))
    return sorted(rows.values(), key=lambda row: (row["fid"] is None, row["fid"] or 0.0, row["trial"]))


def _row(values: Mapping[str, Any]) -> Row:
    params = values.get("params")
    return {
        "trial": values["trial"],
        "state": str(values.get("state") or ""),
        "kimg": finite(values.get("kimg")),
        "last kimg": finite(values.get("last_kimg")),
        "verdict": str(values.get("verdict") or ""),
        "cause": str(values.get("cause") or ""),
        "params": params if isinstance(params, dict) else {},
        **{name: finite(values.get(name)) for name in FORMATS},
    }


def _row_of(number: int, records: Sequence[TrialRecord], told: optuna.trial.FrozenTrial | None) -> Row:
    """The row of a trial that summary.json leaves out."""
    with_fid = [record for record in records if record.fid is not None]
    best = min(with_fid, key=lambda record: record.fid or 0.0, default=None)
    last = records[-1] if records else None
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    stable = best is not None and last is not None and bool(best.fid) and last.fid is not None
    return {
        "trial": number,
        "state": states.get(told.state.name, "running") if told else "",
        "fid": best.fid if best else None,
        "balance": finite(best.balance) if best else None,
        "auc": finite(best.auc) if best else None,
        "kimg": best.kimg if best else None,
        "last kimg": last.kimg if last else 0,
        "stability": last.fid / best.fid if stable and last and best and last.fid and best.fid else None,
        "verdict": last.verdict if last else "",
        "params": dict(told.params) if told else {},
        "cause": str(told.user_attrs.get("cause", "")) if told else "",
    }


def finite(value: object) -> float | None:
    """The number, or None where it is none or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def differing_params(rows: Iterable[Row]) -> list[str]:
    """The hyper-parameters that do not have one value in all trials, in order of first sight."""
    seen: dict[str, set[str]] = {}
    rows = list(rows)
    for row in rows:
        for name, value in row["params"].items():
            seen.setdefault(str(name), set()).add(repr(value))
    everywhere = {name for name in seen if all(name in row["params"] for row in rows)}
    return [name for name, values in seen.items() if len(values) > 1 or name not in everywhere]


def _texts(row: Row, columns: Iterable[str], differing: Sequence[str]) -> list[str]:
    return [cell_text(row, column, differing) for column in columns]


def cell_text(row: Row, column: str, differing: Sequence[str]) -> str:
    """What a table shows of `row` in `column`; "-" where it is not known."""
    value = row[column]
    if column == "params":
        return " ".join(f"{name}={short(value[name])}" for name in differing if name in value)
    if value is None:
        return "-"
    return format(value, FORMATS[column]) if column in FORMATS else str(value)


def short(value: object) -> str:
    """A hyper-parameter or a count in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def all_records(root: Path) -> dict[int, list[TrialRecord]]:
    """The whole records of every trial below `root`, by trial, oldest first."""
    folders = [path for path in (root / "trials").glob("*") if path.name.isdigit()]
    return {int(path.name): read_records(path) for path in sorted(folders, key=lambda p: int(p.name))}
