"""The table of all trials, and the details of each trial for the dialog that page.js opens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.reporting.explain.narrative import explain_trial
from pipeline.reporting.history import History, TrialView, differing_params, finite, short_number
from pipeline.reporting.html.markup import Fact, esc, facts, hinted, scroll, section
from pipeline.reporting.leaderboard import COLUMNS, cell_text, value_of

_CURVES = ("kimg", "fid", "balance")


def table(history: History, thumbnails: Mapping[int, str]) -> str:
    """The section with every trial, best first."""
    trials = history.trials
    differing = differing_params(trials)
    heads = "".join(
        f'<th scope="col"{hinted(meaning)}><button type="button">{name}</button></th>'
        for name, meaning in COLUMNS.items()
    )
    lines = "".join(f"<tr{_attributes(trial)}>{_cells(trial, differing)}</tr>" for trial in trials)
    shared = trials[0].params if trials else {}
    same = [Fact(str(name), short_number(value)) for name, value in shared.items() if name not in differing]
    rest = f"<details><summary>the same in all trials</summary>{facts(same)}</details>" if same else ""
    grid = f'<table id="trials"><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>'
    return section(
        "all",
        "All trials",
        _filters(trials),
        scroll("all trials", grid),
        rest,
        _DIALOG,
        _details_script(history, thumbnails),
    )


def _attributes(trial: TrialView) -> str:
    return f' data-trial="{trial.number}" data-state="{esc(trial.state)}" data-verdict="{esc(trial.verdict)}"'


def _cells(trial: TrialView, differing: Sequence[str]) -> str:
    cells = []
    for column in COLUMNS:
        value, text = value_of(trial, column), cell_text(trial, column, differing)
        known = value if isinstance(value, int | float) else None
        key = f' data-value="{known!r}"' if known is not None else ""
        shown = esc(text)
        if column == "trial":
            shown = f'<button type="button" class="open" aria-label="open trial {shown}">{shown}</button>'
        cells.append(f'<td class="{column.replace(" ", "-")}"{key}>{shown}</td>')
    return "".join(cells)


def _filters(trials: Sequence[TrialView]) -> str:
    states, verdicts = ({getattr(trial, name) for trial in trials} - {""} for name in ("state", "verdict"))
    return (
        '<form class="filters" onsubmit="return false">'
        '<label>filter <input type="search" id="filter" placeholder="hinge, lr_g=0.00, 12 ..."></label>'
        f"<label>state {_select('state', states)}</label>"
        f"<label>verdict {_select('verdict', verdicts)}</label>"
        f'<output id="count" for="filter">{len(trials)} of {len(trials)} trials</output></form>'
    )


def _select(name: str, values: set[str]) -> str:
    options = "".join(f"<option>{esc(value)}</option>" for value in sorted(values))
    return f'<select id="only-{name}"><option value="">all</option>{options}</select>'


def _details_script(history: History, thumbnails: Mapping[int, str]) -> str:
    """The details of each trial, by number, as JSON in a script element that no text in it can end early."""
    details = {str(trial.number): _details(history, trial, thumbnails) for trial in history.trials}
    text = json.dumps(details, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="opened">{text}</script>'


def _details(history: History, trial: TrialView, thumbnails: Mapping[int, str]) -> dict[str, Any]:
    words = dict(explain_trial(history, trial))
    return {
        "state": trial.state,
        "verdict": trial.verdict,
        "cause": trial.cause,
        "words": words,
        "params": {str(name): short_number(value) for name, value in trial.params.items()},
        "grid": thumbnails.get(trial.number, ""),
        "curves": {name: [_point(getattr(record, name)) for record in trial.records] for name in _CURVES},
    }


def _point(value: float | None) -> float | None:
    """A number in five digits, which are enough for a curve and half the bytes."""
    known = finite(value)
    return None if known is None else float(f"{known:.5g}")


_DIALOG = """
<dialog id="one" aria-labelledby="one-title">
<form method="dialog"><h2 id="one-title">trial</h2><button class="close">close</button></form>
<p id="one-state"></p>
<div id="one-words"></div>
<div id="one-curves" class="plot" role="figure" aria-label="fid and balance of this trial over kimg"></div>
<figure id="one-figure"><img id="one-grid" alt="samples of this trial at its best tick">
<figcaption>Samples at its best tick</figcaption></figure>
<h3>Hyper-parameters</h3><dl id="one-params"></dl>
</dialog>
"""
