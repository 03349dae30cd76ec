"""Real sweeps beside replays: the default search against random search with ASHA, for the same time.

Both search the wide space of the table `icons` on the same pictures, from nothing that was tuned on them:
ours begins with the portfolio that was chosen without them. ASHA is `--pruner asha` on both sides, which
begins later and keeps more than the one in the replays. For each seed both run at the same time, on one
core each, so that neither has the quieter machine (unless a run is cut off after one of the two). Each side's
champion is then judged by 5,000 fresh samples, by the sweep's own network and by one that took no part.

A run that was cut off goes on, and a side that has a line in OUT/results.jsonl is not run again: give other
--seconds another OUT.

    python benchmarks/real_search.py --icons icons              # an idle machine; ten minutes a seed
    python benchmarks/real_search.py --icons icons --seconds 60 --seeds 0 --out short
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from colour_search import distances
from json_lines import add_line, read_lines
from replays.points import points_without
from replays.world import TABLES, load_table

from pipeline.config import SweepPaths
from pipeline.search.space.toml import dump_toml
from pipeline.serving.models import load_generator
from pipeline.storage.summary_file import read_summary

TABLE = "icons"
OURS, RANDOM = "gansweep", "random+asha"
SIDES = {OURS: (), RANDOM: ("--sampler", "random", "--pruner", "asha")}
JUDGES = ("classifier", "pixels")
SAMPLES, SAMPLE_SEED = 5000, 1
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--icons", type=Path, required=True, help="as tests/support/icons.py writes them")
    parser.add_argument("--seconds", type=int, default=600, help="of each search")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("real_search"))
    parser.add_argument("--judges", nargs="+", default=list(JUDGES))
    parser.set_defaults(samples=SAMPLES)
    args = parser.parse_args()
    lines = args.out / "results.jsonl"
    write_spaces(args.out)
    rows = read_lines(lines)
    for seed in args.seeds:
        missing = [side for side in SIDES if (seed, side) not in {(r["seed"], r["side"]) for r in rows}]
        search(missing, seed, args)
        for side in missing:
            rows.append({"seed": seed, "side": side, **judge(args.out / f"{side}-{seed}", args)})
            add_line(lines, rows[-1])
    print_table([row for row in rows if row["seed"] in args.seeds], args.judges)


def write_spaces(out: Path) -> None:
    """The wide space for random search, and for ours with the portfolio that does not know the pictures."""
    out.mkdir(parents=True, exist_ok=True)
    text = (TABLES / f"{TABLE}.toml").read_text(encoding="utf-8")
    points = dump_toml({"enqueue": points_without(load_table(TABLE))})
    for side, more in ((OURS, points), (RANDOM, "")):
        (out / f"{side}.toml").write_text(f"{text}\n{more}", encoding="utf-8")


def search(sides: Sequence[str], seed: int, args: argparse.Namespace) -> None:
    """Run the sweeps of a seed at the same time, each trial on one core."""
    running = []
    for side in sides:
        command = [sys.executable, "-m", "pipeline", "run", "--space", args.out / f"{side}.toml"]
        command += ["--data", f"folder:{args.icons}", "--image-size", "32", "--extractor", "classifier"]
        command += ["--second-extractor", "none", "--fid-samples", "500", "--trials", "100000"]
        command += ["--time-budget", f"{args.seconds}s", "--concurrency", "1", "--final-seeds", "0"]
        command += ["--seed", seed, "--no-register", "--quiet", *SIDES[side]]
        command += ["--name", f"{side}-{seed}".replace("+", "-"), "--out", args.out]
        print(" ".join(map(str, command)), flush=True)
        running.append(subprocess.Popen(list(map(str, command)), env={**os.environ, **_ONE_THREAD}))
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit("a sweep failed; the same command goes on")


def judge(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The distances of a sweep's champion, and how many trials it took."""
    folder = folder.with_name(folder.name.replace("+", "-"))
    summary = read_summary(SweepPaths(folder).summary)
    if summary is None or summary.best is None:
        raise SystemExit(f"no trial of {folder} was measured")
    sample = torch.from_numpy(load_generator(str(folder)).sample(SAMPLES, SAMPLE_SEED)[0])
    found = {"trials": summary.trials.ended, "search_fid": summary.best.fid, "kimg": summary.best.kimg}
    return {**found, **distances(folder, sample, args)}


def print_table(rows: Sequence[dict[str, Any]], judges: Sequence[str]) -> None:
    """The distances by seed, and in how many seeds ours is better."""
    print(f"{'seed':<6}{'side':<14}{'trials':>8}{'search fid':>12}" + "".join(f"{j:>14}" for j in judges))
    for row in rows:
        cells = "".join(f"{row[judge]:14.2f}" for judge in judges)
        print(f"{row['seed']:<6}{row['side']:<14}{row['trials']:>8}{row['search_fid']:12.2f}{cells}")
    by_key = {(row["seed"], row["side"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    for judge in judges:
        ratios = [by_key[seed, OURS][judge] / by_key[seed, RANDOM][judge] for seed in seeds]
        better = sum(ratio < 1 for ratio in ratios)
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"ours / random + ASHA by {judge}: {shown}; better in {better} of {len(seeds)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
