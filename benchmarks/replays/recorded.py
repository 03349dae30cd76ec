"""The recorded trials of a table, as arrays: one row per configuration, its seeds averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd

from pipeline.search.space.definition import Space

Params = Mapping[str, Any]


@dataclass(frozen=True)
class Recorded:
    """N configurations of T ticks each. What cannot be averaged over seeds is that of the first seed.

    params: of each configuration. log_fid: float64 (N, T). seeds: int (N,), how many were averaged.
    balance, verdict: (N, T). last: int (N,), the number of ticks until it diverged, 0 where it did not.
    seconds: float64 (N,), of a whole trial. noise: float64 (K, T), what the seed alone adds to log fid.
    """

    params: Sequence[Params]
    log_fid: np.ndarray
    seeds: np.ndarray
    balance: np.ndarray
    verdict: np.ndarray
    last: np.ndarray
    seconds: np.ndarray
    noise: np.ndarray


def read_recorded(frame: pd.DataFrame, space: Space, ticks: int) -> Recorded:
    """frame: a row per tick (`tables/README.md`). ticks: of a trial that was trained to its full length."""
    curves: dict[int, list[np.ndarray]] = {}
    params, last, balance, verdict, seconds = list[Params](), [], [], [], []
    for (config, _), trial in frame.groupby(["config", "seed"], sort=True):
        curves.setdefault(int(config), []).append(trial["fid"].to_numpy(float))
        if len(curves[int(config)]) > 1:
            continue
        first, count = trial.iloc[0], len(trial)
        params.append({n: typed(space, n, first[n]) for n in space.search if not missing(first[n])})
        last.append(count if math.isnan(trial["fid"].iloc[-1]) else 0)
        gap = (0, ticks - count)
        balance.append(np.pad(trial["balance"].fillna(0.0).to_numpy(float), gap))
        verdict.append(np.pad(trial["verdict"].to_numpy(str), gap, mode="edge"))
        seconds.append(float(trial["seconds"].iloc[-1]) * ticks / count)
    filled = filled_log_fids(curves.values(), ticks)
    return Recorded(
        params=params,
        log_fid=np.array([np.mean(rows, axis=0) for rows in filled]),
        seeds=np.array([len(rows) for rows in filled]),
        balance=np.array(balance),
        verdict=np.array(verdict),
        last=np.array(last),
        seconds=np.array(seconds),
        noise=seed_noise(filled),
    )


def filled_log_fids(curves: Iterable[Sequence[np.ndarray]], ticks: int) -> list[np.ndarray]:
    """Log fid (seeds, ticks) of each configuration: gaps and ends as before, or the worst of all."""
    tables = []
    for rows in curves:
        table = np.full((len(rows), ticks), np.nan)
        for row, fid in zip(table, rows, strict=True):
            row[: len(fid)] = fid
        tables.append(pd.DataFrame(table).ffill(axis=1).bfill(axis=1).to_numpy())
    worst = np.nanmax(np.concatenate(tables), axis=0)
    return [np.log(np.where(np.isnan(table), worst, table).clip(1e-3)) for table in tables]


def seed_noise(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Curves (K, T): the difference in log fid of two seeds of a configuration, over the root of 2.

    curves: log fid (seeds, T) of each configuration.
    """
    found = [(a - b) / math.sqrt(2) for rows in curves for a, b in permutations(rows, 2)]
    return np.array(found) if found else np.zeros((1, curves[0].shape[1]))


def typed(space: Space, name: str, value: Any) -> Any:
    """A value of a column of pandas as the space has it."""
    d = space.search[name]
    value = value.item() if hasattr(value, "item") else value
    if d.choices:
        return next(choice for choice in d.choices if choice == value)
    return int(value) if d.whole else float(value)


def missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
