"""Replays that are kept with the code, in one parquet file: those of peers need not be repeated.

A row per incumbent of a replay: table, workers, method, seed, seconds, truth (see `replays.clock.Trace`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from replays.clock import Trace

RESULTS = Path(__file__).parents[1] / "results" / "replays.parquet"
Key = tuple[str, int, str, int]
"""table, workers, method, seed."""
_COLUMNS = ["table", "workers", "method", "seed"]


def read_results(path: Path = RESULTS) -> dict[Key, Trace]:
    """The replays of the file, without their trials; none where there is no file."""
    if not path.is_file():
        return {}
    groups = pd.read_parquet(path).groupby(_COLUMNS, sort=False)
    return {
        (str(table), int(workers), str(method), int(seed)): Trace(
            rows["seconds"].tolist(), rows["truth"].tolist()
        )
        for (table, workers, method, seed), rows in groups
    }


def write_results(found: Mapping[Key, Trace], path: Path = RESULTS) -> None:
    """Add replays to the file; those that it had are replaced."""
    rows = [
        (*key, seconds, truth)
        for key, trace in sorted({**read_results(path), **found}.items())
        for seconds, truth in zip(trace.seconds, trace.truth, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=[*_COLUMNS, "seconds", "truth"])
    frame = frame.astype({"workers": "int16", "seed": "int16", "seconds": "float32", "truth": "float32"})
    fresh = path.with_name(path.name + ".new")
    frame.to_parquet(fresh, compression="zstd", index=False)
    fresh.replace(path)
