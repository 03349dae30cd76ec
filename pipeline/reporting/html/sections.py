"""What the page shows of the sweep as a whole; `champion`, `trust` and `trials` have the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from pipeline.records import METRICS
from pipeline.reporting.explain.narrative import what_lost
from pipeline.reporting.explain.regions import Region
from pipeline.reporting.history import History
from pipeline.reporting.html import figures
from pipeline.reporting.html.cells import Cell, figure_json, measured
from pipeline.reporting.html.savings import MEANINGS, Savings
from pipeline.reporting.leaderboard import COLUMNS
from pipeline.search.study_figures import draw_study
from pipeline.storage.readable import clock, short_number


def headline(history: History) -> str:
    """The sweep in one line: state, trials, time, images."""
    summary, data = history.summary, history.stored.get("data") or {}
    count = len(history.trials)
    asked = f"{count} trials" if count != 1 else "1 trial"
    parts = []
    if summary:
        late = summary.state if summary.state != "failed" else "finished, but incomplete"
        parts = [late, f"{asked} in {clock(summary.wall_seconds)}"]
    if data:
        size, images = data.get("size"), data.get("train")
        shown = f"{images:,}" if isinstance(images, int) else images
        parts.append(f"{shown} images of {size} x {size} ({data.get('source')})")
    return " · ".join(parts)


def overview(history: History) -> dict[str, Cell]:
    """The facts of the search: state, counts, time, evaluator."""
    summary = history.summary
    if summary is None:
        return {"state": Cell("unknown")}
    evaluator, seconds = summary.evaluator, summary.wall_seconds
    counts = {
        f"{state} trials": measured(count, f"trials.{state}", COLUMNS["state"])
        for state, count in vars(summary.trials).items()
    }
    return {
        "state": Cell(summary.state),
        **counts,
        "trained": measured(summary.kimg_total, "kimg_total", "kimg of all trials together", "g"),
        "search time": Cell(clock(seconds), "", "wall_seconds", seconds),
        "evaluator": Cell(
            f"{evaluator.extractor}, {evaluator.samples} samples" if evaluator.hash else "",
            f"fids can be compared only if the hash of the evaluator is the same: {evaluator.hash}",
        ),
        "stopped by": Cell(summary.reason or summary.stopped_by or ""),
    }


def failed_section(history: History) -> dict[str, object]:
    """What was lost and failed: sentences, and a table of the causes with their trials."""
    causes: dict[str, list[int]] = {}
    for trial in sorted(history.trials, key=lambda trial: trial.number):
        if trial.state == "failed":
            causes.setdefault(trial.cause or "unknown", []).append(trial.number)
    rows = [[Cell(cause), Cell(", ".join(map(str, numbers)))] for cause, numbers in causes.items()]
    restarts = [f"Trial {row.trial}: {row}." for row in (history.summary.failures if history.summary else ())]
    return {
        "sentences": what_lost(history),
        "causes": [[Cell("cause"), Cell("failed trials")], *rows] if rows else [],
        "failures": restarts,
    }


def plots(history: History, region: Sequence[Region], saved: Savings) -> dict[str, Markup | None]:
    """The plots about all trials, by name."""
    drawn = {
        "balance": figures.balance(history),
        **draw_study(history.space, history.points),
        "savings": figures.savings(saved) if saved.trained else None,
        "progress": figures.progress(history),
        "space": figures.space(region),
    }
    return {name: figure_json(figure) for name, figure in drawn.items()}


def saved_facts(history: History, saved: Savings) -> dict[str, Cell]:
    """What early stopping saved, and what the sweep cost."""
    gpus, cost = (history.summary.gpu_hours, history.summary.cost) if history.summary else (0.0, None)
    return {
        "trained": Cell(f"{saved.trained:g} kimg", MEANINGS["trained"]),
        "trial time": Cell(clock(3600 * saved.hours), MEANINGS["trial time"]),
        "GPU hours": measured(gpus or None, "gpu_hours", "by the fraction of a GPU that each trial has"),
        "cost": measured(cost, "cost", "by --price and the resources of each trial", ".2f"),
        "after the best": Cell(f"{saved.after_best:g} kimg", MEANINGS["after the best"]),
        "saved": Cell(f"{saved.saved:g} kimg", MEANINGS["saved"]),
        "saved time": Cell(clock(3600 * saved.saved_hours), MEANINGS["saved time"]),
    }


def region_table(region: Sequence[Region]) -> list[list[Cell]]:
    """Where the best trials lie in each searched range, with a row of headings."""
    heads = [Cell(name) for name in ("", "searched", "best trials", "champion", "bounds")]
    return [heads, *map(_region_row, region)]


def _region_row(region: Region) -> list[Cell]:
    d = region.distribution
    if region.counts:
        searched = ", ".join(short_number(choice) for choice in d.choices)
        best = ", ".join(f"{short_number(choice)} ({count})" for choice, count in region.counts.items())
    else:
        searched = f"{short_number(d.low)} to {short_number(d.high)}" + (", log" if d.log else "")
        best = f"{short_number(region.low)} to {short_number(region.high)}"
    hit = f"leans on the {region.hit} bound {short_number(region.bound)}: widen it" if region.hit else ""
    return [Cell(region.name, heading=True), *map(Cell, (searched, best, short_number(region.at), hit))]


def definitions() -> Mapping[str, Cell]:
    """All columns and metrics with their meanings."""
    metrics = {name: metric.meaning for name, metric in METRICS.items()}
    return {name: Cell(meaning) for name, meaning in {**metrics, **COLUMNS, **MEANINGS}.items()}
