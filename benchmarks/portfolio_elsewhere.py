"""Is one of the portfolio's points good on images that no table knows?

The points that come with gansweep and random configurations of the same wide space (that of the table
`icons`) are trained to their full length. Printed: the best fid of the first K points, and what share of
random configurations is better; one over that share is how many random trials it takes, on average, to find
one as good.

    python benchmarks/emoji.py emoji
    python benchmarks/portfolio_elsewhere.py folder:emoji --configs 48     # half an hour of one core
    python benchmarks/portfolio_elsewhere.py SOURCE --table mnist5k --size 28

A trial that has ended is a line of WORK and is not trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from json_lines import add_line, read_lines
from make_tables import draw, open_images, table_space, train_ticks, warm_up

from pipeline.search.space.portfolio import load_portfolio, point_in_space

PORTFOLIO, RANDOM = "portfolio", "random"
FIRST_DRAW = 1_000_000
"""Of the random configurations: none that a table has."""


@dataclass(frozen=True)
class Job:
    """Point or configuration `number` of `kind`, on the images `data` of `size` pixels."""

    kind: str
    number: int
    params: dict[str, Any]
    data: str
    table: str
    size: int


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("data", help="as gansweep's --data takes it")
    parser.add_argument("--table", default="icons", help="whose space is taken")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--configs", type=int, default=48, help="random configurations")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="trials at a time")
    parser.add_argument("--work", type=Path, default=Path("portfolio_elsewhere.jsonl"))
    args = parser.parse_args()
    kinds = {PORTFOLIO: len(load_portfolio()), RANDOM: args.configs}
    jobs = [
        Job(kind, number, params_of(kind, number, args.table, args.size), args.data, args.table, args.size)
        for kind, count in kinds.items()
        for number in range(count)
    ]
    ended = [row["job"] for row in read_lines(args.work)]
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        for row in pool.map(train, [job for job in jobs if asdict(job) not in ended]):
            add_line(args.work, row)
    found = {json.dumps(row["job"]): row["fid"] for row in read_lines(args.work)}
    fids = {kind: [found[json.dumps(asdict(job))] for job in jobs if job.kind == kind] for kind in kinds}
    print_shares(fids)


def params_of(kind: str, number: int, table: str, size: int) -> dict[str, Any]:
    """The values of the searched parameters; what a point lacks is drawn."""
    space = table_space(table)
    drawn = draw(space, FIRST_DRAW + number)
    if kind == RANDOM:
        return drawn
    point = point_in_space(load_portfolio()[number], space.search, space.fixed, size)
    return {name: value for name, value in (drawn | point).items() if space.active(name, drawn | point)}


def train(job: Job) -> dict[str, Any]:
    """One trial: its lowest fid, null where it had none."""
    dataset, evaluator = open_images(job.data, job.size)
    warm_up(dataset, evaluator, "cpu")
    ticks = train_ticks(table_space(job.table).config(job.params), dataset, evaluator, "cpu")
    fids = [tick["fid"] for tick in ticks if tick["fid"] is not None]
    return {"job": asdict(job), "fid": min(fids, default=None), "seconds": ticks[-1]["seconds"]}


def print_shares(fids: Mapping[str, Sequence[float | None]]) -> None:
    """The best of the first points among the random configurations."""
    points, random = (np.array([fid or math.inf for fid in fids[kind]]) for kind in (PORTFOLIO, RANDOM))
    print(f"{len(random)} random configurations: best {random.min():.1f}, median {np.median(random):.1f}")
    for count in range(1, len(points) + 1):
        best = points[:count].min()
        better = f"{int((random < best).sum())} of {len(random)} random ones are better"
        print(f"best of the first {count} points: fid {best:.1f}; {better}")


if __name__ == "__main__":
    main()
