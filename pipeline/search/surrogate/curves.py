"""The learning curves of a study's trials, and where each would end: the values that the sampler learns from.

A trial that was stopped early is worth learning from only if its last fid is compared with the others' at the
same length. Its end is extrapolated: between two reports, the log of the best fid falls for it as it fell on
average for those trials that went on, and the uncertainty grows by their variance. (Freeze-thaw Bayesian
optimisation, Swersky et al. 2014, has a prior for the same; here the sweep's own trials are the prior.)
A trial that diverged or was hopeless ends where it is (`OVER`). Ticks before the first fid are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from pipeline.records import LOWEST_FID, PENALTY
from pipeline.search.surrogate.encoding import Encoder

OVER = "over"
"""User attribute of ended trials whose fid longer training would not lower (`training.balance.is_over`)."""
_FEW = 4  # of fewer values a variance is not estimated
_UNKNOWN_VARIANCE = 0.05  # of a fall in log fid of which little is known


@dataclass(frozen=True)
class Curve:
    """One trial: its point (width,), and the log of the best fid so far (R,) at rising `kimg` (R,).

    over: its fid would not fall further. A trial without a fid has the log of `PENALTY` and is over.
    """

    point: np.ndarray
    kimg: np.ndarray
    values: np.ndarray
    over: bool = False


@dataclass(frozen=True)
class Ends:
    """Of N trials: log fid at a full trial's end, extrapolated where it was stopped; its variance (N,)."""

    values: np.ndarray
    variances: np.ndarray


_ended: WeakKeyDictionary[optuna.Study, dict[int, Curve]] = WeakKeyDictionary()


def curves_of(study: optuna.Study, trials: Sequence[FrozenTrial], encoder: Encoder) -> list[Curve]:
    """The curves of trials that have reported; those of ended ones are kept, as they no longer change."""
    kept = _ended.setdefault(study, {})
    found = []
    for trial in trials:
        curve = kept.get(trial.number)
        if curve is None:
            over = bool(trial.user_attrs.get(OVER))
            curve = make_curve(encoder, trial.params, trial.intermediate_values, over)
            if trial.state != TrialState.RUNNING:
                kept[trial.number] = curve
        found.append(curve)
    return found


def make_curve(
    encoder: Encoder, params: Mapping[str, Any], reports: Mapping[int, float], over: bool = False
) -> Curve:
    """The curve of a trial. reports: the best fid so far by kimg, `PENALTY` before the first; not empty."""
    measured = {kimg: fid for kimg, fid in reports.items() if fid < PENALTY}
    kimg, values = np.array(sorted(measured.items() or [(max(reports), PENALTY)])).T
    logs = np.log(np.maximum(values, LOWEST_FID))
    return Curve(encoder.vector(params), kimg.astype(int), logs, over or not measured)


def extrapolate(curves: Sequence[Curve], full_kimg: int) -> Ends:
    """Where each curve ends at `full_kimg`."""
    every = np.concatenate([*(curve.kimg for curve in curves), [full_kimg]])
    steps, places = np.unique(every, return_inverse=True)
    rows = np.repeat(np.arange(len(curves)), [len(curve.kimg) for curve in curves])
    table = np.full((len(curves), len(steps)), np.nan)
    table[rows, places[:-1]] = np.concatenate([curve.values for curve in curves])
    table = _filled(table)
    known = ~np.isnan(table)
    last = known.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    fall, variance = _falls(table)
    to_come = np.where([curve.over for curve in curves], len(steps) - 1, last)
    ends = table[np.arange(len(table)), last] + fall[to_come]
    return Ends(ends, variance[to_come])


def _filled(table: np.ndarray) -> np.ndarray:
    """Gaps between the reports of a trial filled with the report before; nothing after its last one."""
    known = ~np.isnan(table)
    later = np.logical_or.accumulate(known[:, ::-1], axis=1)[:, ::-1]
    for column in range(1, table.shape[1]):
        gap = ~known[:, column] & later[:, column]
        table[gap, column] = table[gap, column - 1]
    return table


def _falls(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is still to come from each step to the last: mean and variance (T,)."""
    fall, variance = np.zeros(table.shape[1]), np.zeros(table.shape[1])
    for column in range(table.shape[1] - 2, -1, -1):
        steps = table[:, column + 1] - table[:, column]
        steps = steps[~np.isnan(steps)]
        mean = float(steps.mean()) if len(steps) else 0.0
        spread = float(steps.var()) if len(steps) >= _FEW else _UNKNOWN_VARIANCE
        fall[column] = fall[column + 1] + mean
        variance[column] = variance[column + 1] + spread
    return fall, variance
