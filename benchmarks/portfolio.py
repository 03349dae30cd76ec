"""Chooses the portfolio: a few points, one of which is good on most images
(`pipeline.search.space.portfolio`).

Candidates are the best configurations of the tables of real trials. Each is judged on every table by forests
of its curves (`replays.world`), each fitted to another bootstrap of the table, so that a point is not chosen
for one lucky trial. Points are added one by one: each time the one that lowers most the expected regret of
the best point so far. The expectation is over the forests and over noise: on other images each point will be
better or worse than here, by about the spread of a table's trials, and nobody knows by how much. So a second
good point is worth having even where the first is better. Regret is in log fid, over its spread in the table.

    python benchmarks/portfolio.py                  # all tables, and without each: the files in use
    python benchmarks/portfolio.py --points 6 --out other
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from replays.points import SIZES, WITHOUT, shared_point
from replays.world import Forest, Table, load_table

from pipeline.search.recipes import builtin_files
from pipeline.search.space.portfolio import point_in_space
from pipeline.search.space.toml import dump_toml, inline

POINTS = 8
FORESTS = 6  # bootstraps of each table
BEST = 0.1  # of a table's configurations are candidates
TRANSFER = 0.5
"""Standard deviation of what a point's regret is on other images, in the spread of a table's trials."""
DRAWS = 100  # of that noise
RELATIVE = ("gamma", "ema_halflife_kimg")
"""Parameters of a point that depend on the table: its images, and the length of its trials."""
Point = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--tables", nargs="+", default=list(SIZES))
    parser.add_argument("--out", type=Path, help="folder for all files, instead of those that are in use")
    args = parser.parse_args()
    tables = [load_table(name) for name in args.tables]
    forests = {table.name: bootstrapped(table) for table in tables}
    final = args.out / "portfolio.toml" if args.out else builtin_files("portfolio/*.toml")["portfolio"]
    write(final, choose(tables, forests, args.points), "all tables")
    for left_out in tables if len(tables) > 1 else ():
        others = [table for table in tables if table is not left_out]
        points = choose(others, forests, args.points)
        path = (args.out or WITHOUT) / f"without-{left_out.name}.toml"
        write(path, points, f"all tables but {left_out.name}")
        print(f"on {left_out.name}, which took no part:")
        for count, regret in enumerate(regrets([left_out], forests, points), 1):
            print(f"  best of the first {count}: regret {regret:.2f}")


def bootstrapped(table: Table) -> list[Forest]:
    """Forests of the lowest log fid of a trial, fitted to other draws of the configurations."""
    rng, count = np.random.default_rng(0), len(table.params)
    found = []
    for _ in range(FORESTS):
        rows = rng.integers(count, size=count)
        found.append(Forest(table.x[rows], table.log_fid[rows].min(axis=1)[:, None]))
    return found


def candidates(tables: Sequence[Table]) -> list[Point]:
    """The best tenth of each table, as points that move between spaces; equal ones once.

    Tables may share configurations, which then differ only in what is relative to the images and the trial.
    """
    found: dict[str, Point] = {}
    for table in tables:
        best = np.argsort(table.log_fid.min(axis=1))[: max(10, int(BEST * len(table.params)))]
        for row in best:
            point = shared_point(table.params[row], table)
            found.setdefault(str({name: v for name, v in point.items() if name not in RELATIVE}), point)
    return list(found.values())


def scores(point: Point, table: Table, forests: Sequence[Forest]) -> np.ndarray:
    """The regret of a point by each forest of a table, over the spread of its trials: (FORESTS,)."""
    params = point_in_space(point, table.space.search, table.space.fixed, SIZES[table.name])
    vector, ends = table.encode(params), table.log_fid.min(axis=1)
    low, spread = np.quantile(ends, 0.01), ends.std()
    return np.array([(forest(vector)[0] - low) / spread for forest in forests])


def choose(tables: Sequence[Table], forests: Mapping[str, Sequence[Forest]], count: int) -> list[Point]:
    """`count` points, greedily."""
    pool = candidates(tables)
    judged = np.array([np.concatenate([scores(p, t, forests[t.name]) for t in tables]) for p in pool])
    noise = np.random.default_rng(0).normal(0.0, TRANSFER, (len(pool), DRAWS, 1))
    possible = judged[:, None, :] + noise  # (candidates, DRAWS, forests)
    best, chosen = np.full(possible.shape[1:], np.inf), list[int]()
    for _ in range(count):
        expected = np.minimum(possible, best).mean(axis=(1, 2))
        expected[chosen] = np.inf
        chosen.append(int(np.argmin(expected)))
        best = np.minimum(best, possible[chosen[-1]])
    return [pool[row] for row in chosen]


def regrets(
    tables: Sequence[Table], forests: Mapping[str, Sequence[Forest]], points: Sequence[Point]
) -> list[float]:
    """The mean regret of the best of the first 1, 2, ... points."""
    judged = np.array([np.concatenate([scores(p, t, forests[t.name]) for t in tables]) for p in points])
    return [float(row.mean()) for row in np.minimum.accumulate(judged, axis=0)]


def in_lines(point: Point) -> dict[str, Any]:
    """The same with tables that take one line each."""
    return {name: inline(value) if isinstance(value, Mapping) else value for name, value in point.items()}


def write(path: Path, points: Sequence[Point], source: str) -> None:
    """A file that `load_portfolio` reads."""
    head = f"# Chosen by benchmarks/portfolio.py on {source}; see pipeline/search/space/portfolio.py.\n\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(head + dump_toml({"point": [in_lines(point) for point in points]}), encoding="utf-8")
    fresh.replace(path)
    print(f"{path.name}: {len(points)} points")


if __name__ == "__main__":
    main()
