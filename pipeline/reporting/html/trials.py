"""The table of all trials, and the details of each trial for the dialog that page.js opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.reporting.explain.narrative import explain_trial
from pipeline.reporting.history import History, TrialView, differing_params
from pipeline.reporting.html import pictures
from pipeline.reporting.html.cells import Cell
from pipeline.reporting.leaderboard import COLUMNS, cell_text, value_of
from pipeline.storage.readable import finite, short_number

_CURVES = ("kimg", "fid", "balance")


def trials_section(history: History) -> dict[str, object]:
    """What templates/trials.html.j2 shows: the trials, best first, with a cell for each column."""
    trials, thumbnails = history.trials, pictures.thumbnails(history)
    differing = differing_params(trials)
    shared = trials[0].params if trials else {}
    return {
        "columns": COLUMNS,
        "rows": [(trial, _cells(trial, differing)) for trial in trials],
        "states": sorted({trial.state for trial in trials} - {""}),
        "verdicts": sorted({trial.verdict for trial in trials} - {""}),
        "same": {name: Cell(short_number(value)) for name, value in shared.items() if name not in differing},
        "details": {trial.number: _details(history, trial, thumbnails) for trial in trials},
    }


def _cells(trial: TrialView, differing: Sequence[str]) -> dict[str, Cell]:
    return {
        column: Cell(cell_text(trial, column, differing), value=finite(value_of(trial, column)))
        for column in COLUMNS
    }


def _details(history: History, trial: TrialView, thumbnails: Mapping[int, str]) -> dict[str, object]:
    return {
        "state": trial.state,
        "verdict": trial.verdict,
        "cause": trial.cause,
        "words": dict(explain_trial(history, trial)),
        "params": {name: short_number(value) for name, value in trial.params.items()},
        "grid": thumbnails.get(trial.number, ""),
        "curves": {name: [_point(getattr(record, name)) for record in trial.records] for name in _CURVES},
    }


def _point(value: float | None) -> float | None:
    """A number in five digits, which are enough for a curve and half the bytes."""
    known = finite(value)
    return None if known is None else float(f"{known:.5g}")
