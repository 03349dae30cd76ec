"""The plotly figures of the page: the champion's life, fid against balance, progress, savings, the space.

The figures of the study (coordinates, importances, slices) are in `pipeline.search.study_figures`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pipeline.records import TrialRecord
from pipeline.reporting.explain.regions import Region, position
from pipeline.reporting.history import History
from pipeline.reporting.html.savings import Savings
from pipeline.storage.readable import short_number

# Okabe and Ito's colours, which colour-blind readers can distinguish; each verdict has its own symbol too.
VERDICT_STYLES = {
    "healthy": ("#009E73", "circle"),
    "d_wins": ("#0072B2", "triangle-up"),
    "g_wins": ("#E69F00", "triangle-down"),
    "collapsed": ("#D55E00", "x"),
    "diverged": ("#CC79A7", "cross"),
}
_UNKNOWN_STYLE = ("#888888", "circle-open")
_ORANGE, _BLUE, _SKY, _GREY = "#D55E00", "#0072B2", "#56B4E9", "#888888"


def life(history: History, records: Sequence[TrialRecord]) -> go.Figure:
    """fid and balance of the champion over kimg; the other trials' fids behind it."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.6, 0.4], vertical_spacing=0.06)
    points, winner = list[tuple[int | None, float | None, int]](), history.winner
    for trial in history.measured:
        if trial != winner:  # a gap after each: one trace for all trials is fast to draw
            points += [(r.kimg, r.fid, trial.number) for r in trial.records if r.fid is not None]
            points.append((None, None, trial.number))
    if points:
        kimg, fids, numbers = zip(*points, strict=True)
        figure.add_scatter(
            x=kimg, y=fids, customdata=numbers, name="other trials", mode="lines", row=1, col=1,
            line={"color": _GREY, "width": 1}, opacity=0.45,
            hovertemplate="trial %{customdata}<br>%{x} kimg, fid %{y:.4g}<extra></extra>",
        )  # fmt: skip
    measured = [record for record in records if record.fid is not None]
    figure.add_scatter(
        x=[r.kimg for r in measured], y=[r.fid for r in measured], name="champion", mode="lines+markers",
        line={"color": _ORANGE, "width": 3}, row=1, col=1,
        hovertemplate="%{x} kimg, fid %{y:.4g}<extra>champion</extra>",
    )  # fmt: skip
    balanced = [record for record in records if math.isfinite(record.balance)]
    figure.add_scatter(
        x=[r.kimg for r in balanced], y=[r.balance for r in balanced], name="balance", mode="lines+markers",
        line={"color": _BLUE, "width": 2}, row=2, col=1,
        hovertemplate="%{x} kimg, balance %{y:.2f}<extra>champion</extra>",
    )  # fmt: skip
    # After the traces: plotly leaves out a shape whose panel has no trace yet.
    figure.add_hrect(y0=0.2, y1=0.8, fillcolor="#009E73", opacity=0.15, line_width=0, row=2, col=1)
    figure.update_yaxes(title_text="fid", type="log", row=1, col=1)
    figure.update_yaxes(title_text="balance", range=[-0.02, 1.02], row=2, col=1)
    return figure.update_xaxes(title_text="kimg", row=2, col=1)


def balance(history: History) -> go.Figure:
    """Best fid against the balance at that tick, coloured by the verdict of the last tick; a ring marks the
    champion."""
    figure = go.Figure()
    shown = [trial for trial in history.measured if trial.balance is not None]
    for verdict in sorted({trial.verdict for trial in shown}):
        colour, symbol = VERDICT_STYLES.get(verdict, _UNKNOWN_STYLE)
        of_verdict = [trial for trial in shown if trial.verdict == verdict]
        figure.add_scatter(
            x=[trial.balance for trial in of_verdict], y=[trial.fid for trial in of_verdict],
            customdata=[trial.number for trial in of_verdict],
            name=html.escape(verdict) or "unknown", mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 10},
            hovertemplate="trial %{customdata}<br>balance %{x:.2f}<br>fid %{y:.4g}",
        )  # fmt: skip
    winner = history.winner
    if winner in shown and winner is not None:
        ring = {"color": "rgba(0,0,0,0)", "size": 18, "line": {"color": _ORANGE, "width": 3}}
        figure.add_scatter(
            x=[winner.balance], y=[winner.fid], name="champion", mode="markers", marker=ring, hoverinfo="skip"
        )
    figure.update_layout(xaxis_title="balance at the best fid", yaxis_title="best fid", yaxis_type="log")
    return figure.update_layout(xaxis_range=[-0.02, 1.02])


def progress(history: History) -> go.Figure:
    """The best fid so far, trial by trial, against the same trials in a random order."""
    figure = go.Figure()
    shown = sorted(history.measured, key=lambda trial: trial.number)
    fids = [trial.fid for trial in shown if trial.fid is not None]
    if not fids:
        return figure
    numbers = [trial.number for trial in shown]
    lowest = [min(fids[: i + 1]) for i in range(len(fids))]
    hover = "trial %{x}<br>fid %{y:.4g}<extra></extra>"
    figure.add_scatter(
        x=numbers, y=fids, name="a trial", mode="markers", marker={"color": _SKY}, hovertemplate=hover
    )
    line = {"color": _ORANGE, "shape": "hv", "width": 3}
    figure.add_scatter(x=numbers, y=lowest, name="best so far", mode="lines", line=line)
    figure.add_scatter(
        x=numbers, y=expected_best_in_random_order(fids), name="same trials, random order", mode="lines",
        line={"color": _GREY, "dash": "dash"},
    )  # fmt: skip
    return figure.update_layout(xaxis_title="trial", yaxis_title="best fid", yaxis_type="log")


def expected_best_in_random_order(fids: Sequence[float]) -> list[float]:
    """The expected minimum of n of these N fids, drawn without replacement, for n = 1 to N.

    P(the i-th smallest of N is the minimum of n) = C(N-i, n-1) / C(N, n), i from 1.
    """
    ordered, count, ranks = np.sort(fids), len(fids), np.arange(1, len(fids) + 1)
    weights, expected = np.full(count, 1 / count), []
    for n in range(1, count + 1):
        expected.append(float(weights @ ordered))
        weights = weights * np.maximum(count - ranks - n + 1, 0) * (n + 1) / (n * max(count - n, 1))
    return expected


def savings(saved: Savings) -> go.Figure:
    """One bar of all kimg: useful, trained after the best tick, saved by early stopping."""
    parts = (
        ("up to each trial's best", saved.useful, "#009E73"),
        ("after its best", saved.after_best, "#E69F00"),
        ("saved by stopping early", saved.saved, "#BBBBBB"),
    )
    figure = go.Figure()
    for name, kimg, colour in parts:
        figure.add_bar(
            x=[kimg], y=["kimg"], name=name, orientation="h", marker_color=colour,
            text=[f"{kimg:g}" if kimg else ""], hovertemplate=f"{name}: %{{x}} kimg<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="stack", xaxis_title="kimg")
    return figure.update_yaxes(visible=False)


def space(found: Sequence[Region]) -> go.Figure:
    """A bar for each searched number: its range, the part where the best trials lie, the champion's value."""
    figure = go.Figure()
    numbers = [region for region in reversed(found) if not region.counts]
    if not numbers:
        return figure
    names = [region.name for region in numbers]
    spans = [(position(r.distribution, r.low), position(r.distribution, r.high)) for r in numbers]
    hints = [
        f"searched {short_number(r.distribution.low)} to {short_number(r.distribution.high)}<br>"
        f"best trials {short_number(r.low)} to {short_number(r.high)}<br>champion {short_number(r.at)}"
        for r in numbers
    ]
    hover = {"customdata": hints, "hovertemplate": "%{y}<br>%{customdata}<extra></extra>"}
    figure.add_bar(
        x=[1.0] * len(names), y=names, orientation="h", name="searched", marker_color="#BBBBBB", width=0.25,
        opacity=0.6, **hover,
    )  # fmt: skip
    figure.add_bar(
        x=[max(high - low, 0.01) for low, high in spans], base=[low for low, _ in spans], y=names,
        orientation="h", name="the best trials", marker_color=_BLUE, width=0.5, **hover,
    )  # fmt: skip
    figure.add_scatter(
        x=[position(region.distribution, region.at) for region in numbers], y=names, name="champion",
        mode="markers", marker={"color": _ORANGE, "symbol": "diamond", "size": 12}, **hover,
    )  # fmt: skip
    figure.update_layout(barmode="overlay", yaxis_automargin=True)
    ticks = {"tickvals": [0, 1], "ticktext": ["low bound", "high bound"], "range": [-0.04, 1.04]}
    return figure.update_xaxes(**ticks)
