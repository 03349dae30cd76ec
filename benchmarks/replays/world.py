"""What a trial of any parameters would have done, from a table of real trials (`tables/NAME.parquet`).

A forest of extremely randomised trees (Geurts et al. 2006) is fitted to the table: from the parameters to the
whole curve of log fid, of balance, to whether the trial has diverged by a tick, and to its seconds. A forest
alone is too smooth: it explains half of what recorded trials differ by. So a replayed trial follows the curve
of a forest that has not seen the nearest recorded trial, moved by how far that one lies from the same forest;
at a recorded trial this is the recorded curve, and replayed fids spread as recorded ones do. Noise comes on
top: the difference of two recorded seeds of one configuration, so it has the size and the shape over time
that it has.

`Table.agreement` tells how far a forest is right about trials that it has not seen.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.search.space.definition import Space
from pipeline.search.space.parser import parse_space
from pipeline.search.surrogate.encoding import Encoder

TABLES = Path(__file__).parents[1] / "tables"
TREES, FOLDS = 60, 5
Params = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """A replayed trial. All arrays have one entry per tick (T,); it ends after its last one.

    fid: with noise, NaN where the tick diverged. truth: the expected fid. seconds: from its start.
    """

    kimg: np.ndarray
    fid: np.ndarray
    truth: np.ndarray
    balance: np.ndarray
    seconds: np.ndarray
    diverged: bool


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
        self.space = parse_space((folder / f"{name}.toml").read_text(encoding="utf-8"), name)
        frame = pd.read_parquet(folder / f"{name}.parquet")
        self.full_kimg = self.space.config({}).kimg
        self.ticks = np.arange(1, self.full_kimg + 1)
        self.encode = PointEncoder(self.space)
        self._read(frame)
        self._folds = np.array([config for config, _ in self.keys]) % FOLDS
        self._forests = self._unseen_forests(np.concatenate([self.log_fid, self.alive, self.balance], axis=1))
        self._cost = Forest(self.x, np.log(self.seconds)[:, None].repeat(2, axis=1))
        self._noise = self._seed_noise()
        self._unexplained = self.log_fid - self._unseen()
        self._scale = np.sqrt(np.mean([forest.importances for forest in self._forests], axis=0))
        self._places = self.x * self._scale

    def _read(self, frame: pd.DataFrame) -> None:
        """The trials as arrays: x (N, width); log_fid, alive, balance (N, T); seconds of a whole one (N,)."""
        self.params: list[dict[str, Any]] = []
        self.keys: list[tuple[int, int]] = []
        curves, alive, balance, seconds = [], [], [], []
        for key, trial in frame.groupby(["config", "seed"], sort=True):
            first = trial.iloc[0]
            params = {n: plain(first[n]) for n in self.space.search if not missing(first[n])}
            self.params.append({n: self._typed(n, v) for n, v in params.items()})
            self.keys.append((int(key[0]), int(key[1])))
            fid = np.full(len(self.ticks), np.nan)
            fid[: len(trial)] = trial["fid"].to_numpy(float)
            known = np.where(np.isfinite(fid))[0]
            filled = pd.Series(fid).ffill().bfill().to_numpy() if len(known) else np.full(len(fid), np.nan)
            curves.append(filled)
            alive.append(np.isfinite(fid))
            balance.append(pd.Series(trial["balance"].to_numpy(float)).reindex(range(len(fid))).fillna(0.0))
            seconds.append(float(trial["seconds"].iloc[-1]) * len(fid) / len(trial))
        worst = np.nanmax(np.array(curves), axis=0)
        self.x = np.array([self.encode(params) for params in self.params])
        self.log_fid = np.log(np.where(np.isnan(curves), worst, curves).clip(1e-3))
        self.alive, self.balance = np.array(alive, float), np.array(balance)
        self.seconds = np.array(seconds)

    def _typed(self, name: str, value: Any) -> Any:
        d = self.space.search[name]
        if d.choices:
            return next(choice for choice in d.choices if choice == value)
        return int(value) if d.whole else float(value)

    def _unseen_forests(self, target: np.ndarray) -> list[Forest]:
        """Of each fold a forest of all other configurations."""
        return [Forest(self.x[self._folds != fold], target[self._folds != fold]) for fold in range(FOLDS)]

    def _unseen(self) -> np.ndarray:
        """Log fid (N, T) of the recorded trials by the forests that have not seen them."""
        pairs = zip(self.x, self._folds, strict=True)
        return np.array([self._forests[fold](point)[: len(self.ticks)] for point, fold in pairs])

    def _seed_noise(self) -> np.ndarray:
        """Curves (K, T): the difference in log fid of two seeds of a configuration, over the root of 2."""
        groups: dict[int, list[int]] = {}
        for row, (config, _) in enumerate(self.keys):
            groups.setdefault(config, []).append(row)
        found = [
            (self.log_fid[a] - self.log_fid[b]) / math.sqrt(2)
            for rows in groups.values()
            for a in rows
            for b in rows
            if a != b
        ]
        return np.array(found) if found else np.zeros((1, len(self.ticks)))

    def expected(self, params: Params) -> Trial:
        """The trial without noise."""
        return self._trial(params, np.zeros(len(self.ticks)))

    def trial(self, params: Params, rng: np.random.Generator) -> Trial:
        """A trial with the noise of a seed."""
        return self._trial(params, self._noise[rng.integers(len(self._noise))])

    def _trial(self, params: Params, noise: np.ndarray) -> Trial:
        point, count = self.encode(params), len(self.ticks)
        nearest = int(np.argmin(((self._places - point * self._scale) ** 2).sum(axis=1)))
        forest = self._forests[self._folds[nearest]]
        log_fid, alive, balance = np.split(forest(point), [count, 2 * count])
        log_fid = log_fid + self._unexplained[nearest]
        dead = np.where(alive < 0.5)[0]
        last = int(dead[0]) + 1 if len(dead) else count
        fid, truth = np.exp(log_fid + noise)[:last], np.exp(log_fid)[:last]
        if len(dead):
            fid[-1] = truth[-1] = np.nan
        seconds = np.exp(self._cost(point)[0]) * self.ticks[:last] / count
        return Trial(self.ticks[:last], fid, truth, balance[:last].clip(0, 1), seconds, bool(len(dead)))

    def mean_seconds(self) -> float:
        """Of a random trial to its full length."""
        return float(self.seconds.mean())

    def agreement(self) -> float:
        """Rank correlation of what forests say about unseen trials with the best fids that these had."""
        from scipy.stats import spearmanr

        return float(spearmanr(self._unseen().min(axis=1), self.log_fid.min(axis=1))[0])


def plain(value: Any) -> Any:
    """A value of a column of pandas as Python's own."""
    return value.item() if hasattr(value, "item") else value


def missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


@cache
def load_table(name: str) -> Table:
    """The table `tables/NAME.parquet`; GANSWEEP_TABLES names another folder."""
    return Table(name, Path(os.environ.get("GANSWEEP_TABLES", TABLES)))
