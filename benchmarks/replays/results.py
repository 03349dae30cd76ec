"""Replays that are kept with the code, in one parquet file: those of peers need not be repeated.

A row per incumbent of a replay: table, world, workers, method, seed, seconds, truth (see
`replays.clock.Trace`). The world is the table's version and the compute of a replay: others do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from replays.clock import Trace

RESULTS = Path(__file__).parents[1] / "results" / "replays.parquet"
Key = tuple[str, str, int, str, int]
"""table, world, workers, method, seed."""
Results = dict[Key, Trace]
_COLUMNS = ["table", "world", "workers", "method", "seed"]


def read_results(path: Path = RESULTS) -> Results:
    """The replays of the file, without their trials; none where there is no file."""
    if not path.is_file():
        return {}
    found: Results = {}
    for row in pd.read_parquet(path).itertuples(index=False):
        trace = found.setdefault((row.table, row.world, row.workers, row.method, row.seed), Trace())
        trace.seconds.append(row.seconds)
        trace.truth.append(row.truth)
    return found


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
