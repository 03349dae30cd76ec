"""What the search believes: which parameters decide, and where it expects the best fid. For `explain`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.search.space.definition import Space
from pipeline.search.surrogate.curves import make_curve
from pipeline.search.surrogate.encoding import Encoder, Params
from pipeline.search.surrogate.gaussian_process import GaussianProcess
from pipeline.search.surrogate.model import STARTUP, fit_model

_LOOKED_AT = 3000  # random points among which, and the trials', the best expected one is looked for
_VARIED = 40  # of them, around which and to which each parameter is varied alone
Trial = tuple[Mapping[str, Any], Mapping[int, float], bool]


@dataclass(frozen=True)
class Belief:
    """parameters: the most decisive first. point: has the lowest expected fid, with 68 % in low..high."""

    parameters: tuple[str, ...]
    point: Params
    fid: float
    low: float
    high: float


def belief_of(space: Space, trials: Iterable[Trial]) -> Belief | None:
    """What `mfgp` believes after trials; None: nothing yet.

    trials: parameters, the best fid so far by kimg, whether the trial is over (`Curve`).
    """
    encoder = Encoder(space)
    tried = [(params, reports, over) for params, reports, over in trials if reports]
    curves = [make_curve(encoder, *trial) for trial in tried]
    if len(curves) < STARTUP:
        return None
    process = fit_model(space, encoder, curves, np.empty((0, encoder.width))).process
    rng = np.random.default_rng(0)
    drawn = encoder.draw(rng, _LOOKED_AT)
    effects = _effects(process, encoder, drawn[:_VARIED])
    own = [encoder.places(params) for params, _, _ in tried]
    points = np.concatenate([np.where(np.isnan(own), encoder.draw(rng, len(own)), own), drawn])
    mean, deviation = process.predict(encoder.vectors(points))
    best = int(np.argmin(mean))
    fid, factor = math.exp(mean[best]), math.exp(deviation[best])
    names = tuple(encoder.names[index] for index in np.argsort(-effects, kind="stable"))
    return Belief(names, encoder.params(points[best]), fid, fid / factor, fid * factor)


def _effects(process: GaussianProcess, encoder: Encoder, points: np.ndarray) -> np.ndarray:
    """(P,): how far the expected log fid moves with each parameter alone, around points (M, P)."""
    found = []
    for column in range(points.shape[1]):
        varied = np.repeat(points[:, None], len(points), axis=1)
        varied[:, :, column] = points[:, column]
        mean, _ = process.predict(encoder.vectors(varied.reshape(-1, points.shape[1])))
        found.append(mean.reshape(len(points), -1).std(axis=1).mean())
    return np.array(found)
