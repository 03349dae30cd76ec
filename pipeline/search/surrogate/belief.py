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
from pipeline.search.surrogate.model import STARTUP, fit_model

_LOOKED_AT = 3000  # random points among which the best expected one is looked for


@dataclass(frozen=True)
class Belief:
    """parameters: the most decisive first. point: has the lowest expected fid, with 68 % in low..high."""

    parameters: tuple[str, ...]
    point: Params
    fid: float
    low: float
    high: float


def belief_of(space: Space, trials: Iterable[tuple[Mapping[str, Any], Mapping[int, float]]]) -> Belief | None:
    """What `mfgp` believes after trials: parameters, and the best fid so far by kimg. None: nothing yet."""
    encoder = Encoder(space)
    curves = [make_curve(encoder, params, reports) for params, reports in trials if reports]
    if len(curves) < STARTUP:
        return None
    process = fit_model(space, encoder, curves, np.empty((0, encoder.width))).process
    decisive = np.argsort(-process.scales.relevances, kind="stable")
    points = encoder.draw(np.random.default_rng(0), _LOOKED_AT)
    mean, deviation = process.predict(encoder.vectors(points))
    best = int(np.argmin(mean))
    fid, factor = math.exp(mean[best]), math.exp(deviation[best])
    names = tuple(encoder.names[index] for index in decisive)
    return Belief(names, encoder.params(points[best]), fid, fid / factor, fid * factor)
