"""Searches replayed on tables of real trials, in virtual time: whose search needs the least compute?

Real trials were trained once (`make_tables.py`); here each method searches the same wide space a hundred
times, through our own study, pruner and trial manager or through the package of a peer, and no trial is
trained. A method's compute is what all its workers took until the median over its seeds was as good as random
search's is at its end, after the compute of 64 full trials; the ratio divides it by random search's.

Our first points (`portfolio.py`) are those that the other tables chose. Peers have their own defaults and no
portfolio; PriorBand's prior is the portfolio's first point.

    python benchmarks/replay.py                               # ours, random, random + ASHA: half an hour
    python benchmarks/replay.py --methods all --json out.jsonl --plot regret.svg
    python benchmarks/replay.py --methods gansweep random --tables digits --workers 2 --seeds 10
    python benchmarks/replay.py --methods choices --seeds 30          # ours with one of its choices changed
    python benchmarks/replay.py --methods gansweep:sampler=tpe,pruner=none

Replays that have ended are kept in WORK and are not repeated: delete WORK after a change of the search. Those
of peers come from `results/replays.parquet` where they are there, unless --anew is given; --save adds to it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from json_lines import add_line, read_lines
from replays.chosen import print_chosen
from replays.clock import Trace, replay
from replays.methods import CORE, OURS, choices, known_methods, open_search, seeds_of
from replays.peers import PEERS
from replays.plots import plot_regret
from replays.results import Results, read_results, write_results
from replays.scores import Curves, compute_ratio, curves_of
from replays.world import load_table

TABLES = ("digits", "mnist5k", "icons")
FULL_TRIALS = 64
"""The compute of random search, in full trials of mean length.

Not more than a table can tell apart: the smallest has 150 configurations, and a search that has tried most of
them could be told from a better one only by luck.
"""
BARS = {"random": 1 / 8, "random+asha": 1 / 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--tables", nargs="+", default=list(TABLES))
    parser.add_argument("--workers", nargs="+", type=int, default=[2, 8])
    names = f"all, choices, or of: {', '.join(known_methods())}"
    parser.add_argument("--methods", nargs="+", default=list(CORE), help=names)
    parser.add_argument(
        "--seeds",
        type=int,
        default=100,
        help="of each method, at most; slow peers have fewer, random search has 100",
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=Path("build/replays"), help="folder of what has ended")
    parser.add_argument("--anew", action="store_true", help="repeat what results/replays.parquet has")
    parser.add_argument(
        "--save", action="store_true", help="add the peers' replays to results/replays.parquet"
    )
    parser.add_argument("--kept", action="store_true", help="replay nothing: the results of what has ended")
    parser.add_argument("--json", type=Path, help="write a line a table, workers and method there too")
    parser.add_argument("--plot", type=Path, help="draw the regret over compute there")
    args = parser.parse_args()
    methods = list(dict.fromkeys(["random", "random+asha", *args.methods]))
    for word, meant in (("all", known_methods()), ("choices", choices())):
        if word in methods:
            methods = list(dict.fromkeys([*(m for m in methods if m != word), *meant]))
    lines, drawn, saved = [], {}, read_results()
    for table in args.tables:
        print(f"{table}: rank correlation of unseen trials {load_table(table).agreement():.2f}", flush=True)
        for workers in args.workers:
            found = {m: replays_of(table, workers, m, args, saved) for m in methods}
            curves = {method: curve for method, curve in found.items() if len(curve.truth)}
            if not curves.keys() >= BARS.keys():
                raise SystemExit(f"{table}, {workers} workers: no replays of random search: leave out --kept")
            drawn[table, workers] = curves
            lines += results(table, workers, curves)
            print_table(table, workers, lines)
    print_ranks(lines)
    print_chosen(lines)
    if args.json:
        args.json.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if args.plot:
        plot_regret(drawn, args.plot)


# --- The replays ---------------------------------------------------------------------------------


def replays_of(table: str, workers: int, method: str, args: argparse.Namespace, saved: Results) -> Curves:
    """All seeds of a method; those that have ended before are read."""
    world = f"{load_table(table).version}-{FULL_TRIALS}"
    path = args.work / f"{table}-{world}" / f"{method.replace(':', '-')}-{workers}.jsonl"
    traces = {line["seed"]: Trace(**line["trace"]) for line in read_lines(path)}
    count = seeds_of(method) if method in BARS else min(args.seeds, seeds_of(method))
    keys = {seed: (table, world, workers, method, seed) for seed in range(count)}
    if method in PEERS and not args.anew:
        traces = {seed: saved[key] for seed, key in keys.items() if key in saved} | traces
    missing = [seed for seed in keys if seed not in traces]
    if missing and not args.kept:
        print(f"{table}, {workers} workers, {method}: {len(missing)} replays", file=sys.stderr, flush=True)
        with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
            jobs = [(table, workers, method, seed) for seed in missing]
            for seed, trace in zip(missing, pool.map(one_replay, jobs), strict=True):
                traces[seed] = trace
                add_line(path, {"seed": seed, "trace": asdict(trace)}, quiet=True)
    ended = {keys[seed]: traces[seed] for seed in keys if seed in traces}
    if args.save and method in PEERS:
        write_results(ended)
    return curves_of(list(ended.values()), workers, FULL_TRIALS * load_table(table).mean_seconds())


def one_replay(job: tuple[str, int, str, int]) -> Trace:
    """table, workers, method, seed."""
    name, workers, method, seed = job
    table = load_table(name)
    budget = FULL_TRIALS * table.mean_seconds() / workers
    with open_search(method, table, workers, seed) as search:
        return replay(table, search, workers, budget, seed)


# --- The results ---------------------------------------------------------------------------------


def results(table: str, workers: int, curves: Mapping[str, Curves]) -> list[dict[str, Any]]:
    """A line a method; `compute_ratio` is null where random search's end was never reached.

    Methods are ranked by it, and by the fid at the end where it is null.
    """
    random, asha = curves["random"], curves["random+asha"]
    lines = []
    for method, curve in curves.items():
        to_random, to_asha = compute_ratio(curve, random, random), compute_ratio(curve, asha, random)
        line = {"table": table, "workers": workers, "method": method, "seeds": len(curve.truth)}
        line |= {"compute_ratio": to_random.value, "low": to_random.low, "high": to_random.high}
        line |= {"to_random_asha": to_asha.value, "fid_at_end": float(curve.middle[-1])}
        lines.append({n: or_null(v) for n, v in line.items()})
    ranked = sorted(lines, key=lambda line: (line["compute_ratio"] or math.inf, line["fid_at_end"]))
    for line in lines:
        line["rank"] = 1 + ranked.index(line)
    return lines


def or_null(value: Any) -> Any:
    """The value; None where it is a number that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(table: str, workers: int, lines: Sequence[Mapping[str, Any]]) -> None:
    """The methods of one table and number of workers, the best first."""
    heads = f"{'compute / random':>32}{'95 %':>18}{'/ random+asha':>15}{'fid':>9}{'seeds':>7}"
    print(f"\n{table}, {workers} workers{heads}", flush=True)
    rows = [line for line in lines if (line["table"], line["workers"]) == (table, workers)]
    for line in sorted(rows, key=lambda line: line["rank"]):
        cells = [number(line[n]) for n in ("compute_ratio", "low", "high", "to_random_asha")]
        span = f"{cells[1]}..{cells[2]}"
        ends = f"{line['fid_at_end']:9.2f}{line['seeds']:7}"
        print(f"  {line['method']:<32}{cells[0]:>14}{span:>18}{cells[3]:>15}{ends}", flush=True)


def number(value: float | None) -> str:
    return "never" if value is None else f"{value:.3f}"


def print_ranks(lines: Sequence[Mapping[str, Any]]) -> None:
    """The average rank of each method, and how our search stands to its bars."""
    ranks: dict[str, list[int]] = {}
    for line in lines:
        ranks.setdefault(line["method"], []).append(line["rank"])
    print("\naverage rank")
    for method, found in sorted(ranks.items(), key=lambda pair: sum(pair[1]) / len(pair[1])):
        print(f"  {method:<32}{sum(found) / len(found):6.2f}")
    for line in lines:
        if line["method"] == OURS:
            found = {"random": line["compute_ratio"], "random+asha": line["to_random_asha"]}
            for reference, bar in BARS.items():
                value = found[reference]
                verdict = "reached" if value is not None and value <= bar else "missed"
                place = f"{line['table']}, {line['workers']} workers"
                print(f"gansweep / {reference} on {place}: {number(value)}, at most {bar:.3f}: {verdict}")


if __name__ == "__main__":
    main()
