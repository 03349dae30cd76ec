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
import math
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from json_lines import add_line, read_lines
from make_tables import EXTRACTOR, SAMPLES, draw, table_space, train_ticks, warm_up

from pipeline.data.dataset import load_dataset
from pipeline.data.options import DataOptions
from pipeline.metrics import extractors, frechet
from pipeline.search.space.portfolio import load_portfolio, point_in_space

PORTFOLIO, RANDOM = "portfolio", "random"
FIRST_DRAW = 1_000_000
"""Of the random configurations: none that a table has."""


@dataclass(frozen=True)
class Job:
    """Point or configuration `number` of `kind` on the images `data` of `size` pixels."""

    kind: str
    number: int
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
    wanted = [(PORTFOLIO, n) for n in range(len(load_portfolio()))]
    wanted += [(RANDOM, n) for n in range(args.configs)]
    ended = {(row["kind"], row["number"]) for row in read_lines(args.work)}
    jobs = [Job(*key, args.data, args.table, args.size) for key in wanted if key not in ended]
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        for row in pool.map(train, jobs):
            add_line(args.work, row)
    rows = [row for row in read_lines(args.work) if (row["kind"], row["number"]) in wanted]
    print_shares(sorted(rows, key=lambda row: row["number"]))


def train(job: Job) -> dict[str, Any]:
    """One trial: its lowest fid, null where it had none."""
    dataset = load_dataset(job.data, DataOptions(size=job.size))
    evaluator = frechet.build_evaluator(dataset, extractors.build_extractor(EXTRACTOR, dataset), SAMPLES)
    warm_up(dataset, evaluator, "cpu")
    space = table_space(job.table)
    if job.kind == PORTFOLIO:
        point = point_in_space(load_portfolio()[job.number], space.search, space.fixed, job.size)
        params = {**draw(space, FIRST_DRAW + job.number), **point}
    else:
        params = draw(space, FIRST_DRAW + job.number)
    ticks = train_ticks(space.config(params), dataset, evaluator, "cpu")
    fids = [tick["fid"] for tick in ticks if tick["fid"] is not None]
    seconds = ticks[-1]["seconds"] if ticks else 0.0
    return {"kind": job.kind, "number": job.number, "fid": min(fids, default=None), "seconds": seconds}


def print_shares(rows: list[dict[str, Any]]) -> None:
    """The best of the first points among the random configurations. rows: by number."""
    points, random = (
        np.array([row["fid"] or math.inf for row in rows if row["kind"] == kind])
        for kind in (PORTFOLIO, RANDOM)
    )
    print(f"{len(random)} random configurations: best {random.min():.1f}, median {np.median(random):.1f}")
    for count in range(1, len(points) + 1):
        best = points[:count].min()
        better = f"{int((random < best).sum())} of {len(random)} random ones are better"
        print(f"best of the first {count} points: fid {best:.1f}; {better}")


if __name__ == "__main__":
    main()
