"""Fault injection: kills, outages and damaged files in real sweeps, and what must hold afterwards.

    python benchmarks/chaos.py [--quick] [--row NAME]... [--seed S] [--times N]

Each kind of fault runs in a separate process, so that its settings do not reach the next. Prints a table: how
often each fault was injected, the longest time from a fault to recovery, and what broke. Exit code 1 if
anything did. The whole table takes about 80 minutes on two cores, --quick about 20.
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

from faults import ending, files, killing, numbers, outages, starting
from faults.result import Result
from rich.console import Console
from rich.table import Table

Inject = Callable[[Path, int, random.Random], Result]

FAULTS: dict[str, tuple[Inject, int, int]] = {
    # name: (function, how often, how often with --quick)
    "driver": (killing.driver, 20, 2),
    "worker": (killing.worker, 15, 3),
    "tracker": (outages.tracker, 5, 1),
    "checkpoint": (numbers.cut_checkpoints, 50, 5),
    "disk": (outages.full_disk, 3, 1),
    "nan": (numbers.not_finite, 10, 1),
    "files": (files.in_process, 10_000, 300),
    "commands": (files.through_the_command, 50, 4),
    "node": (killing.node, 3, 1),
    "end": (ending.end, 3, 1),
    "together": (starting.together, 20, 2),
}


def main() -> None:
    """Inject the faults that were asked for, print the table, exit with 1 if a promise broke."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", action="append", choices=FAULTS, help="only this fault; repeatable")
    parser.add_argument("--quick", action="store_true", help="each fault a few times")
    parser.add_argument("--times", type=int, default=0, help="how often each fault is injected")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    results = [_run(name, args) for name in args.row or FAULTS]
    table = Table("fault", "times", "longest to recovery", "held")
    for result in results:
        table.add_row(*result.cells())
    Console(width=150).print(table)
    sys.exit(any(result.broken for result in results))


def _run(name: str, args: argparse.Namespace) -> Result:
    """The result of one kind of fault; an error of the injection itself counts as broken."""
    inject, often, quick = FAULTS[name]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"chaos-{name}-") as folder:
        times = args.times or (quick if args.quick else often)
        try:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                result = pool.submit(inject, Path(folder), times, random.Random(args.seed)).result()
        except Exception as error:  # the other faults are still to run
            result = Result(name, broken=[f"{type(error).__name__}: {error}"])
    result.notes.append(f"{time.monotonic() - started:.0f} s in all")
    for text in [": ".join((name, *result.cells()[1:])), *result.broken[1:10]]:
        print(text, file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    main()
