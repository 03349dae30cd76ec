"""The figures of a report: the sweep's own, and Optuna's on a copy of its study.

Owns: what is drawn and in which colours. Refuses: writing to a study (it reads a copy of the journal,
so a running sweep is not disturbed).
"""

from __future__ import annotations

import html
import math
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.storages.journal import JournalFileBackend

from pipeline.records import PENALTY, TrialRecord
from pipeline.report.rows import Row

# Okabe and Ito's colours, told apart by colour-blind readers too; a symbol each besides.
_LOOK = {
    "healthy": ("#009E73", "circle"),
    "d_wins": ("#0072B2", "triangle-up"),
    "g_wins": ("#E69F00", "triangle-down"),
    "collapsed": ("#D55E00", "x"),
    "diverged": ("#CC79A7", "cross"),
}
_PLAIN = ("#888888", "circle-open")
_STATES = {"complete": "#0072B2", "running": "#009E73", "pruned": "#999999", "failed": "#D55E00"}


def draw_all(
    rows: Sequence[Row],
    records: Mapping[int, Sequence[TrialRecord]],
    summary: Mapping[str, Any],
    study: optuna.Study | None,
) -> dict[str, go.Figure]:
    """By title. Those without a single point are left out."""
    best = (summary.get("best") or {}).get("trial", rows[0]["trial"] if rows else None)
    figures = {
        "fid over kimg": _curves(rows, records, best),
        "fid against balance": _scatter(rows),
        "The search so far": _history(rows),
        **(_study_figures(study) if study is not None else {}),
    }
    return {title: figure for title, figure in figures.items() if figure.data}


def _curves(rows: Sequence[Row], records: Mapping[int, Sequence[TrialRecord]], best: object) -> go.Figure:
    """One trace per state, trials parted by gaps: hundreds of trials stay quick to draw."""
    figure = go.Figure()
    for state, colour in [*_STATES.items(), ("", "#888888"), ("champion", "#E69F00")]:
        numbers = [row["trial"] for row in rows if row["trial"] != best and row["state"] == state]
        numbers = [best] if state == "champion" else numbers
        points = [point for number in numbers for point in _points(number, records.get(number, ()))]
        if points:
            kimg, fids, trials = zip(*points, strict=True)
            width = 3 if state == "champion" else 1
            figure.add_scatter(
                x=kimg, y=fids, customdata=trials, name=state or "unknown", mode="lines+markers",
                line={"color": colour, "width": width}, marker={"size": width + 2},
                hovertemplate="trial %{customdata}<br>%{x} kimg<br>fid %{y:.4g}",
            )  # fmt: skip
    return figure.update_layout(xaxis_title="kimg", yaxis_title="fid", yaxis_type="log")


def _points(number: int, records: Iterable[TrialRecord]) -> list[tuple[Any, Any, int]]:
    points: list[tuple[Any, Any, int]] = [(r.kimg, r.fid, number) for r in records if r.fid is not None]
    return [*points, (None, None, number)] if points else []


def _scatter(rows: Sequence[Row]) -> go.Figure:
    figure = go.Figure()
    shown = [row for row in rows if row["fid"] is not None and row["balance"] is not None]
    for verdict in sorted({row["verdict"] for row in shown}):
        colour, symbol = _LOOK.get(verdict, _PLAIN)
        mine = [row for row in shown if row["verdict"] == verdict]
        figure.add_scatter(
            x=[row["balance"] for row in mine], y=[row["fid"] for row in mine],
            customdata=[row["trial"] for row in mine], name=html.escape(verdict) or "unknown", mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 9},
            hovertemplate="trial %{customdata}<br>balance %{x:.2f}<br>fid %{y:.4g}",
        )  # fmt: skip
    figure.update_layout(xaxis_title="balance at the best fid", yaxis_title="best fid", yaxis_type="log")
    return figure.update_layout(xaxis_range=[-0.02, 1.02])


def _history(rows: Sequence[Row]) -> go.Figure:
    figure = go.Figure()
    shown = sorted((row for row in rows if row["fid"] is not None), key=lambda row: int(row["trial"]))
    if not shown:
        return figure
    numbers, fids = [row["trial"] for row in shown], [row["fid"] for row in shown]
    lowest = [min(fids[: i + 1]) for i in range(len(fids))]
    figure.add_scatter(x=numbers, y=fids, name="a trial", mode="markers", marker={"color": "#56B4E9"})
    figure.add_scatter(
        x=numbers, y=lowest, name="best so far", mode="lines", line={"color": "#E69F00", "shape": "hv"}
    )
    return figure.update_layout(xaxis_title="trial", yaxis_title="best fid", yaxis_type="log")


def read_study(journal: Path, scratch: Path) -> optuna.Study | None:
    """The study, read from a copy: opening a journal makes lock files beside it."""
    if not journal.is_file():
        return None
    copied = scratch / "study.journal"
    shutil.copyfile(journal, copied)
    whole = copied.read_bytes()
    copied.write_bytes(whole[: whole.rfind(b"\n") + 1])  # the last line may be half written
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(copied)))
        names = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=names[0], storage=storage) if names else None
    except Exception:  # a damaged journal raises whatever its replay trips over
        return None
    finally:
        optuna.logging.set_verbosity(verbosity)


def _finished(study: optuna.Study) -> optuna.Study:
    """The completed trials that have a fid, as a study in memory: all at the same budget, no penalty."""
    copy = optuna.create_study(direction="minimize")
    done = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    copy.add_trials([trial for trial in done if trial.value is not None and 0 < trial.value < PENALTY])
    return copy


def _study_figures(study: optuna.Study) -> dict[str, go.Figure]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        done = _finished(study)
        drawn = {
            "What mattered": lambda: _importances(done),
            "Parallel coordinates": lambda: _coordinates(done),
        }
        return {title: figure for title, draw in drawn.items() if (figure := _try(draw)) is not None}
    finally:
        optuna.logging.set_verbosity(verbosity)


def _try(draw: Callable[[], go.Figure]) -> go.Figure | None:
    """A figure, or None where Optuna has too few or too uniform trials for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return draw()
    except (ValueError, RuntimeError, ZeroDivisionError, ImportError):
        return None


def _log_fid(trial: optuna.trial.FrozenTrial) -> float:
    # fids of a sweep span decades; on a linear scale the worst trial hides all others.
    return math.log10(trial.value) if trial.value else math.nan


def _importances(study: optuna.Study) -> go.Figure:
    if len(study.trials) < 4:
        raise ValueError("an importance from fewer than four trials is noise")
    shares = optuna.importance.get_param_importances(study, target=_log_fid)
    names = list(reversed(shares))
    bars = go.Bar(x=[shares[name] for name in names], y=names, orientation="h", marker_color="#0072B2")
    figure = go.Figure(bars)
    return figure.update_layout(xaxis_title="share of the variance of log10 fid", yaxis_automargin=True)


def _coordinates(study: optuna.Study) -> go.Figure:
    if len(study.trials) < 2:
        raise ValueError("one line is no comparison")
    figure = optuna.visualization.plot_parallel_coordinate(study, target=_log_fid, target_name="log10 fid")
    return figure.update_layout(title=None)
