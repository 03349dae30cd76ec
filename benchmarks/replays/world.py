"""What a trial of any parameters would have done, from a table of real trials (`tables/NAME.parquet`).

A forest of extremely randomised trees (Geurts et al. 2006) is fitted to the table: from the parameters to the
whole curve of log fid. A forest alone is too smooth: it explains half of what recorded trials differ by. So a
replayed trial follows the curve of a forest that has not seen the nearest recorded configuration, moved by
how far that one lies from the same forest. A part of this distance is the luck of the recorded seed; it is
left out by shrinking (`Table.shrinkage`). Noise comes on top: the difference of two recorded seeds of one
configuration. Balance, verdict and where a trial diverges are those of the nearest recorded configuration;
seconds are from a forest of their own.

`Table.agreement` tells how far a forest is right about trials that it has not seen.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.search.space.definition import Space
from pipeline.search.space.parser import parse_space
from pipeline.search.surrogate.encoding import Encoder
from replays.recorded import Params, read_recorded

TABLES = Path(__file__).parents[1] / "tables"
TREES, FOLDS = 60, 5
WORLD = b"2"
"""Changes with the meaning of this file: replays of another world are not read."""


@dataclass(frozen=True)
class Trial:
    """A replayed trial. All arrays have one entry per tick (T,); it ends after its last one.

    fid: with noise, NaN where the tick diverged. truth: the expected fid. verdict: of `records.VERDICTS`.
    seconds: from its start.
    """

    kimg: np.ndarray
    fid: np.ndarray
    truth: np.ndarray
    balance: np.ndarray
    verdict: np.ndarray
    seconds: np.ndarray


class PointEncoder:
    """Parameters as our sampler sees them (`search.surrogate.encoding`), and the ratio of the rates."""

    def __init__(self, space: Space) -> None:
        self._encoder = Encoder(space)

    def __call__(self, params: Params) -> np.ndarray:
        """float64 (width,)."""
        ratio = math.log10(params["lr_d"] / params["lr_g"]) / 6 + 0.5
        return np.append(self._encoder.vector(params), ratio)


class Forest:
    """A fitted forest as arrays, so that one prediction takes a fraction of a millisecond."""

    def __init__(self, x: np.ndarray, y: np.ndarray, seed: int = 0) -> None:
        """x: (N, width). y: (N, outputs), of about the same scale."""
        from sklearn.ensemble import ExtraTreesRegressor

        y = y.ravel() if y.shape[1] == 1 else y  # as scikit-learn wants it

        fitted = ExtraTreesRegressor(
            TREES, min_samples_leaf=2, max_features=0.5, random_state=seed, n_jobs=1
        ).fit(x, y)
        self.importances: np.ndarray = fitted.feature_importances_
        trees = [tree.tree_ for tree in fitted.estimators_]
        sizes = [tree.node_count for tree in trees]
        self._roots = np.cumsum([0, *sizes[:-1]])
        self._feature = np.concatenate([tree.feature for tree in trees])
        self._threshold = np.concatenate([tree.threshold for tree in trees])
        offsets = np.repeat(self._roots, sizes)
        inner = self._feature >= 0
        children = [
            np.concatenate([getattr(t, f"children_{side}") for t in trees]) for side in ("left", "right")
        ]
        own = np.arange(len(self._feature))
        self._left, self._right = (np.where(inner, child + offsets, own) for child in children)
        self._values = np.concatenate([tree.value[:, :, 0] for tree in trees])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The mean of the trees, (outputs,), of one point (width,)."""
        nodes = self._roots
        while True:
            feature = self._feature[nodes]
            if (feature < 0).all():
                return self._values[nodes].mean(axis=0)
            nodes = np.where(x[feature] <= self._threshold[nodes], self._left[nodes], self._right[nodes])


class Table:
    """A table of real trials, and what it says about any parameters."""

    def __init__(self, name: str, folder: Path = TABLES) -> None:
        self.name = name
        space, trials = (folder / f"{name}.{ending}" for ending in ("toml", "parquet"))
        self.space = parse_space(space.read_text(encoding="utf-8"), name)
        self.version = hashlib.sha256(WORLD + space.read_bytes() + trials.read_bytes()).hexdigest()[:8]
        self.full_kimg = self.space.config({}).kimg
        self.ticks = np.arange(1, self.full_kimg + 1)
        self.encode = PointEncoder(self.space)
        self.recorded = read_recorded(pd.read_parquet(trials), self.space, self.full_kimg)
        self.params, self.log_fid = self.recorded.params, self.recorded.log_fid
        self.x = np.array([self.encode(params) for params in self.params])
        self._folds = np.arange(len(self.params)) % FOLDS
        self._forests = [
            Forest(self.x[self._folds != fold], self.log_fid[self._folds != fold]) for fold in range(FOLDS)
        ]
        self._cost = Forest(self.x, np.log(self.recorded.seconds)[:, None])
        self._unexplained = self.log_fid - self._unseen()
        self._scale = np.sqrt(np.mean([forest.importances for forest in self._forests], axis=0))
        self._places = self.x * self._scale

    def _unseen(self) -> np.ndarray:
        """Log fid (N, T) of the recorded configurations by the forests that have not seen them."""
        pairs = zip(self.x, self._folds, strict=True)
        return np.array([self._forests[fold](point) for point, fold in pairs])

    @cached_property
    def shrinkage(self) -> np.ndarray:
        """(N,): the part of a configuration's distance from its forest that is no luck of its seeds, 0..1."""
        luck = float((self.recorded.noise**2).mean()) / self.recorded.seeds
        spread = (self._unexplained**2).mean(axis=1)
        lasting = max(float((spread - luck).mean()), 0.0)
        found: np.ndarray = lasting / (lasting + luck + 1e-12)
        return found

    def expected(self, params: Params) -> Trial:
        """The trial without noise."""
        return self._trial(params, np.zeros(len(self.ticks)))

    def trial(self, params: Params, rng: np.random.Generator) -> Trial:
        """A trial with the noise of a seed."""
        return self._trial(params, self.recorded.noise[rng.integers(len(self.recorded.noise))])

    def _trial(self, params: Params, noise: np.ndarray) -> Trial:
        point = self.encode(params)
        nearest = int(np.argmin(((self._places - point * self._scale) ** 2).sum(axis=1)))
        moved = self._unexplained[nearest] * self.shrinkage[nearest]
        log_fid = self._forests[self._folds[nearest]](point) + moved
        end = int(self.recorded.last[nearest])
        last = end or len(self.ticks)
        fid, truth = np.exp(log_fid + noise)[:last], np.exp(log_fid)[:last]
        if end:
            fid[-1] = truth[-1] = np.nan
        seconds = np.exp(self._cost(point)[0]) * self.ticks[:last] / len(self.ticks)
        balance, verdict = self.recorded.balance[nearest][:last], self.recorded.verdict[nearest][:last]
        return Trial(self.ticks[:last], fid, truth, balance, verdict, seconds)

    def mean_seconds(self) -> float:
        """Of a random trial to its full length."""
        return float(self.recorded.seconds.mean())

    def agreement(self) -> float:
        """Rank correlation of what forests say about unseen trials with the best fids that these had."""
        from scipy.stats import spearmanr

        return float(spearmanr(self._unseen().min(axis=1), self.log_fid.min(axis=1))[0])


@cache
def load_table(name: str) -> Table:
    """The table `tables/NAME.parquet`; GANSWEEP_TABLES names another folder."""
    return Table(name, Path(os.environ.get("GANSWEEP_TABLES", TABLES)))
