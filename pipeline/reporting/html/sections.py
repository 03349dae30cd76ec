"""The sections of the page about the sweep as a whole; `champion` and `trials` have the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from pipeline.records import METRICS
from pipeline.reporting.explain.narrative import explain_sweep, shared_values
from pipeline.reporting.explain.regions import MIN_TRIALS, Region, best_trials, regions
from pipeline.reporting.history import History, finite, short_number
from pipeline.reporting.html import figures, savings
from pipeline.reporting.html.markup import (
    Fact,
    esc,
    facts,
    measured,
    note,
    number,
    plot,
    scroll,
    section,
    sentences,
)
from pipeline.reporting.leaderboard import COLUMNS
from pipeline.storage.summary_file import SweepSummary

_SAME_EVALUATOR = "fids can be compared only if the hash of the evaluator is the same"


def overview(history: History) -> str:
    """The summary at the top: state, counts, data, evaluator, and the explanation of the sweep."""
    data = history.stored.get("data") or {}
    size = data.get("size")
    images = f"{data.get('train')} of {size} x {size} ({data.get('source')})" if data else ""
    shown = [
        *(_totals(history.summary) if history.summary else [Fact("state", "unknown")]),
        Fact("images", images),
        *(_conditions(history.summary) if history.summary else ()),
    ]
    blocks = "".join(
        f"<div><h3>{esc(heading)}</h3>{sentences(lines)}</div>" for heading, lines in explain_sweep(history)
    )
    return f'<div class="card">{facts(shown)}<div class="short">{blocks}</div></div>'


def _totals(summary: SweepSummary) -> list[Fact]:
    counts = [
        measured(f"{state} trials", count, f"trials.{state}", COLUMNS["state"])
        for state, count in vars(summary.trials).items()
    ]
    return [
        Fact("state", summary.state),
        *counts,
        measured("trained", summary.kimg_total, "kimg_total", "kimg of all trials together", "g"),
        Fact("search time", _clock(summary.wall_seconds), "wall_seconds", summary.wall_seconds),
    ]


def _conditions(summary: SweepSummary) -> list[Fact]:
    evaluator = summary.evaluator
    measured_by = f"{evaluator.extractor}, {evaluator.samples} samples" if evaluator.hash else ""
    return [
        Fact("evaluator", measured_by, hint=f"{_SAME_EVALUATOR}: {evaluator.hash}"),
        Fact("stopped by", summary.reason or summary.stopped_by or ""),
    ]


def balance(history: History) -> str:
    """The section with fid against balance."""
    text = "Each point is a trial at its best tick; shape and colour are the verdict of its last tick."
    drawn = plot("balance", "best fid against balance", figures.balance(history))
    return section("balance", "fid against balance", drawn, note(text), sentences(shared_values(history)))


def search(drawn: Mapping[str, go.Figure | None], searched: int) -> str:
    """The sections with the three figures of the study; `searched`: number of searched hyper-parameters."""
    coordinates = (
        "All trials with a fid, at their best one (those stopped early had less time to reach theirs);"
        " the best quarter in orange."
    )
    importances = (
        "How much of the differences in log fid each parameter explains (fANOVA); the lines span 80 % of the"
        " values found in resampled trials: where they are long, the importance is not known yet."
    )
    width = max(700, 110 * searched)
    return "".join(
        [
            section(
                "coordinates",
                "Parallel coordinates",
                plot(
                    "coordinates", "hyper-parameters and fid of all trials", drawn["coordinates"], width=width
                ),
                note(coordinates),
            ),
            section(
                "importances",
                "What mattered",
                plot("importances", "importance of the hyper-parameters", drawn["importances"], height=340),
                note(importances),
            ),
            section(
                "slices",
                "Slices",
                plot(
                    "slices", "fid over each hyper-parameter", drawn["slices"], width=max(700, 200 * searched)
                ),
                note("fid over one parameter at a time, whatever the others were."),
            ),
        ]
    )


def saved(history: History) -> str:
    """The section with what early stopping saved."""
    found, meanings = savings.compute_savings(history), savings.MEANINGS
    summary = history.summary
    gpus, cost = (summary.gpu_hours, summary.cost) if summary else (0.0, None)
    shown = [
        Fact("trained", f"{found.trained:g} kimg", hint=meanings["trained"]),
        Fact("trial time", _clock(3600 * found.hours), hint=meanings["trial time"]),
        Fact(
            "GPU hours",
            number(gpus) if gpus else "",
            "gpu_hours",
            gpus,
            "by the fraction of a GPU that each trial has",
        ),
        measured("cost", cost, "cost", "by --price and the resources of each trial", ".2f"),
        Fact("after the best", f"{found.after_best:g} kimg", hint=meanings["after the best"]),
        Fact("saved", f"{found.saved:g} kimg", hint=meanings["saved"]),
        Fact("saved time", _clock(3600 * found.saved_hours), hint=meanings["saved time"]),
    ]
    drawn = plot(
        "savings", "kimg spent and saved", figures.savings(found) if found.trained else None, height=200
    )
    return section("savings", "What pruning saved", facts(shown), drawn)


def progress(history: History) -> str:
    """The section with the best fid so far, against the same trials in a random order."""
    text = (
        "The dashed line is what the same trials would give on average in a random order: where the search"
        " runs below it, later proposals were better than earlier ones."
    )
    drawn = plot("progress", "best fid so far, trial by trial", figures.progress(history))
    return section("progress", "Search progress against random expectation", drawn, note(text))


def space(history: History) -> str:
    """The section with the region of the best trials in the space."""
    best = best_trials(history)
    found = regions(history, best) if len(best) >= MIN_TRIALS else []
    drawn = plot("space", "where the best trials lie", figures.space(found), height=90 + 44 * len(found))
    text = (
        f"The region of the {len(best)} best trials. `gansweep explain SWEEP_DIR --next FILE.toml` writes it."
    )
    parts = (
        [drawn, _region_table(found), note(text)]
        if found
        else [note("A region needs three trials with a fid.")]
    )
    return section("space", "The space, and the region that won", *parts)


def _region_table(found: Sequence[Region]) -> str:
    heads = "".join(
        f'<th scope="col">{name}</th>' for name in ("", "searched", "best trials", "champion", "bounds")
    )
    lines = "".join(f"<tr>{_region_row(region)}</tr>" for region in found)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return scroll("the space", table)


def _region_row(region: Region) -> str:
    d = region.distribution
    if region.counts:
        searched = ", ".join(short_number(choice) for choice in d.choices)
        best = ", ".join(f"{short_number(choice)} ({count})" for choice, count in region.counts.items())
    else:
        searched = f"{short_number(d.low)} to {short_number(d.high)}" + (", log" if d.log else "")
        best = f"{short_number(region.low)} to {short_number(region.high)}"
    hit = f"leans on the {region.hit} bound {short_number(region.bound)}: widen it" if region.hit else ""
    cells = (searched, best, short_number(region.at), hit)
    return f'<th scope="row">{esc(region.name)}</th>' + "".join(f"<td>{esc(cell)}</td>" for cell in cells)


def definitions() -> str:
    """The list of all columns and metrics with their meanings."""
    meanings = {**{name: meaning for name, (_, meaning) in METRICS.items()}, **COLUMNS, **savings.MEANINGS}
    items = facts([Fact(name, meaning) for name, meaning in meanings.items()], "long")
    folded = f"<details><summary>What the numbers mean</summary>{items}</details>"
    return f'<section id="definitions">{folded}</section>'


def _clock(seconds: object) -> str:
    whole = int(finite(seconds) or 0)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
