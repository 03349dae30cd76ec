"""Optuna's figures of a sweep: parallel coordinates, importances with their uncertainty, slices.

They show all trials that have a fid, those stopped early as well, at their best fid. They are drawn from a
study in memory, not from the sweep's: a running sweep is not disturbed, and no database is needed.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import plotly.graph_objects as go

from pipeline.records import PENALTY
from pipeline.search.samplers import to_optuna
from pipeline.search.space.definition import Space

Points = Sequence[tuple[Mapping[str, Any], float | None]]
"""Parameters and best fid of trials, in the order of their numbers."""

MIN_TRIALS = 4
"""Fewest trials for importances: with fewer they are noise."""

_RESAMPLES = 12
_TREES = 16
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#888888"


def draw_study(space: Space | None, measured: Points) -> dict[str, go.Figure | None]:
    """The figures `coordinates`, `importances` and `slices`; None where trials are too few or too uniform.

    space: of the sweep; None: there are no figures. measured: parameters and best fid of each trial.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    figures = {"coordinates": _coordinates, "importances": _importances, "slices": _slices}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = _completed_study(space, measured) if space else None
        return {name: _try(draw, study) if study else None for name, draw in figures.items()}


def _completed_study(space: Space, measured: Points) -> optuna.Study:
    """A study in memory with the measured trials as completed ones."""
    study = optuna.create_study(direction="minimize")
    for drawn, fid in measured:
        if fid is None or not 0 < fid < PENALTY:  # no fid on a log scale
            continue
        params = {name: value for name, value in drawn.items() if name in space.search}
        distributions = {name: to_optuna(space.search[name]) for name in params}
        with contextlib.suppress(ValueError):  # a value that the space does not have any more
            study.add_trial(optuna.trial.create_trial(value=fid, params=params, distributions=distributions))
    return study


def _try(draw: Callable[[optuna.Study], go.Figure], study: optuna.Study) -> go.Figure | None:
    try:
        return draw(study)
    except (ValueError, RuntimeError, ZeroDivisionError, ImportError):
        return None


def _log_fid(trial: optuna.trial.FrozenTrial) -> float:
    # fids of a sweep span decades; on a linear scale the worst trial hides all others.
    return math.log10(trial.value) if trial.value else math.nan


def _coordinates(study: optuna.Study) -> go.Figure:
    if len(study.trials) < 2:
        raise ValueError("one line is no comparison")
    drawn = optuna.visualization.plot_parallel_coordinate(study, target=_log_fid, target_name="log10 fid")
    lines = sorted((trace for trace in drawn.data if trace.mode == "lines"), key=lambda trace: -trace.y[0])
    best = max(3, math.ceil(len(lines) / 4))
    for index, line in enumerate(lines):  # two colours visible on dark and on light; the best on top
        good = index >= len(lines) - best
        line.update(opacity=0.9 if good else 0.4, line={"color": _ORANGE if good else _GREY, "width": 1.5})
    drawn.for_each_annotation(lambda text: text.font.update(color=None))
    return go.Figure(lines, drawn.layout).update_layout(title=None)


def _importances(study: optuna.Study) -> go.Figure:
    """fANOVA's fractions of the variance of log10 fid, with the middle 80 % over resampled trials."""
    if len(study.trials) < MIN_TRIALS:
        raise ValueError("an importance from fewer than four trials is noise")
    trials = study.get_trials(deepcopy=False)
    fractions = _variance_fractions(trials, seed=0)
    rng = np.random.default_rng(0)
    resampled: dict[str, list[float]] = {name: [] for name in fractions}
    for seed in range(_RESAMPLES):
        picked = rng.integers(0, len(trials), len(trials))
        with contextlib.suppress(ValueError, RuntimeError):  # all the same trial
            for name, fraction in _variance_fractions([trials[i] for i in picked], seed).items():
                resampled.setdefault(name, []).append(fraction)
    names = list(reversed(fractions))
    values = [fractions[name] for name in names]
    spans = [np.quantile(resampled[name] or [fractions[name]], (0.1, 0.9)).tolist() for name in names]
    spread = {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - value) for value, (_, high) in zip(values, spans, strict=True)],
        "arrayminus": [max(0.0, value - low) for value, (low, _) in zip(values, spans, strict=True)],
        "color": _ORANGE,
    }
    bars = go.Bar(
        x=values, y=names, orientation="h", marker_color=_BLUE, error_x=spread, customdata=spans,
        hovertemplate="%{y}: %{x:.2f}<br>%{customdata[0]:.2f} to %{customdata[1]:.2f} with other trials"
        "<extra></extra>",
    )  # fmt: skip
    return go.Figure(bars).update_layout(
        xaxis={"title": "fraction of the variance of log10 fid", "rangemode": "tozero"}, yaxis_automargin=True
    )


def _variance_fractions(trials: list[optuna.trial.FrozenTrial], seed: int) -> dict[str, float]:
    study = optuna.create_study()
    study.add_trials(trials)
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=_TREES, max_depth=_TREES, seed=seed)
    return optuna.importance.get_param_importances(study, evaluator=evaluator, target=_log_fid)


def _slices(study: optuna.Study) -> go.Figure:
    """fid over each parameter, one panel each."""
    if len(study.trials) < 2:
        raise ValueError("one point is no slice")
    figure = optuna.visualization.plot_slice(study, target_name="best fid")
    figure.update_traces(
        marker={"color": _BLUE, "size": 8, "opacity": 0.75, "showscale": False, "line_width": 0}
    )
    figure.update_yaxes(type="log")
    figure.for_each_xaxis(lambda axis: axis.update(dtick=1) if axis.type == "log" else None)  # decades
    return figure.update_layout(title=None)
