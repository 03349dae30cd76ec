"""What a sweep survives: faults planted on purpose in real processes, and what must hold afterwards.

    python benchmarks/chaos.py [--quick] [--row NAME]... [--seed S] [--times N]

Each row is planted by a process of its own, so that what one sets there does not touch the next. Prints a
table: how often each fault was planted, the longest time from a fault to recovery, and what broke.
Exit code 1 where something did. The whole table takes about 40 minutes on two cores, --quick about ten.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from faults import files, killing, numbers, outages
from faults.result import Result
from rich.console import Console
from rich.table import Table

Plant = Callable[[Path, int, random.Random], Result]

ROWS: dict[str, tuple[Plant, int, int]] = {
    # name: (what plants it, how often, how often with --quick)
    "driver": (killing.driver, 20, 2),
    "worker": (killing.worker, 15, 3),
    "tracker": (outages.tracker, 5, 1),
    "checkpoint": (numbers.cut_checkpoints, 50, 5),
    "disk": (outages.full_disk, 3, 1),
    "nan": (numbers.not_finite, 10, 1),
    "files": (files.in_process, 10_000, 300),
    "commands": (files.through_the_command, 50, 4),
    "node": (killing.node, 3, 1),
}


def main() -> None:
    """Plant the rows that were asked for, print the table, exit 1 where one did not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", action="append", choices=ROWS, help="only this one; repeatable")
    parser.add_argument("--quick", action="store_true", help="each fault a few times")
    parser.add_argument("--times", type=int, default=0, help="how often each fault is planted")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    results = [_plant(name, asked) for name in asked.row or ROWS]
    table = Table("fault", "times", "longest to recovery", "held")
    for result in results:
        table.add_row(*result.cells())
    Console(width=150).print(table)
    sys.exit(any(result.broken for result in results))


def _plant(name: str, asked: argparse.Namespace) -> Result:
    """One row; what breaks the row itself is told in it."""
    plant, often, quick = ROWS[name]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"chaos-{name}-") as folder:
        times = asked.times or (quick if asked.quick else often)
        try:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as own:
                result = own.submit(plant, Path(folder), times, random.Random(asked.seed)).result()
        except Exception as error:  # the other rows are still to come
            result = Result(name, broken=[f"{type(error).__name__}: {error}"])
    result.notes.append(f"{time.monotonic() - begun:.0f} s in all")
    for text in [": ".join((name, *result.cells()[1:])), *result.broken[1:10]]:
        print(text, file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    main()
