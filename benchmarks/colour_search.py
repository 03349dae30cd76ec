"""What search is worth on colour pictures: a champion against a recipe and an enqueued point, each alone.

For each seed three runs of `gansweep run`, one after another, each for the same time on the same cores:
- champion: the plain command with `--time-budget`;
- recipe: `--recipe dcgan --trials 1`, one trial on all cores, ended by the time alone;
- enqueued: of the points that the space tries first, the one with the lowest fid in the search, alone in the
  same way. `enqueued, in search` is the same point's generator as the search trained it, without a run.
Each is judged at the same number of samples by networks that took no part in its search: by the classifier
that is trained on the set's labels, and by pixels. Beside them stands `efficientnet`, by which the search
itself measured. The first judge decides: the champion's distance is to be at most 0.4 of the recipe's and at
most 0.8 of the enqueued point's. `--judges inception classifier pixels` where its weights are on disk.

A run that was cut off goes on, and a part whose results are in OUT/results.jsonl is not run again.

    python benchmarks/colour_search.py --data folder:icons            # an idle machine; 40 minutes a seed
    python benchmarks/colour_search.py --data folder:icons --seconds 40 --seeds 0 --out short
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from json_lines import add_line, read_lines
from torch import Tensor

from pipeline.config import SweepPaths
from pipeline.data.dataset import Dataset
from pipeline.metrics import extractors, frechet
from pipeline.metrics.loading import read_images
from pipeline.metrics.statistics import BATCH
from pipeline.search.space.toml import dump_toml
from pipeline.serving.models import load_generator
from pipeline.storage.summary_file import LeaderboardRow, SweepSummary, read_summary
from pipeline.sweep.manifest import Manifest, read_existing
from pipeline.training.checkpoint import best_generator
from pipeline.training.sampling import labelled_image_sampler

CHAMPION, RECIPE, ENQUEUED, IN_SEARCH = "champion", "recipe", "enqueued", "enqueued, in search"
PARTS = (CHAMPION, RECIPE, ENQUEUED, IN_SEARCH)
BARS = {RECIPE: 0.4, ENQUEUED: 0.8}
ENDLESS_KIMG = 100_000  # so that only the time ends a trial
SAMPLE_SEED = 1
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", required=True, help="labelled colour pictures, as `gansweep run --data`")
    parser.add_argument("--seconds", type=float, default=600.0, help="of each run's search")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="of a trial that runs alone")
    parser.add_argument("--samples", type=int, default=5000, help="of each distance")
    parser.add_argument("--judges", nargs="+", default=["classifier", "pixels", "efficientnet"])
    parser.add_argument("--space", default="", help="of all runs; chosen by the images if left out")
    parser.add_argument("--out", type=Path, default=Path("colour_search"))
    args = parser.parse_args()
    lines = args.out / "results.jsonl"
    rows = read_lines(lines)
    for seed in args.seeds:
        for part in PARTS:
            if not any((row["seed"], row["part"]) == (seed, part) for row in rows):
                row = {"seed": seed, "part": part, **result_of(part, seed, args)}
                rows.append(row)
                add_line(lines, row)
    print_table([row for row in rows if row["seed"] in args.seeds], args)


# --- The runs ------------------------------------------------------------------------------------


def result_of(part: str, seed: int, args: argparse.Namespace) -> Row:
    """Run a part if it has not been, and measure its generator."""
    searched = args.out / f"champion-{seed}"
    if part == IN_SEARCH:
        row = best_enqueued(searched)
        sample = in_search_samples(searched, row.trial, args.samples)
        return {"trial": row.trial, "fid": row.fid, "kimg": row.kimg, **distances(searched, sample, args)}
    folder = args.out / f"{part}-{seed}"
    alone = ["--trials", "1", "--cpus-per-trial", args.cores, "--kimg", ENDLESS_KIMG, "--no-register"]
    options = {
        CHAMPION: ["--space", args.space] if args.space else [],
        RECIPE: ["--recipe", "dcgan", *(["--space", args.space] if args.space else []), *alone],
        ENQUEUED: ["--space", args.out / f"point-{seed}.toml", *alone],
    }
    if part == ENQUEUED:
        write_point(searched, args.out / f"point-{seed}.toml")
    timed = {} if finished(folder) else {"wall_seconds": run(folder, seed, options[part], args)}
    summary = finished(folder)
    if summary is None:
        raise SystemExit(f"the sweep in {folder} was interrupted; the same command goes on")
    found = {"trials": summary.trials.ended, "search_seconds": summary.wall_seconds, **timed}
    best = summary.best
    if best is None:  # no tick was measured
        return {**found, "kimg": 0, **dict.fromkeys(args.judges, math.inf)}
    sample = torch.from_numpy(load_generator(str(folder)).sample(args.samples, SAMPLE_SEED)[0])
    found |= {"trial": best.trial, "fid": best.fid, "kimg": best.kimg}
    return {**found, **distances(searched, sample, args)}


def run(folder: Path, seed: int, options: Sequence[object], args: argparse.Namespace) -> float:
    """`gansweep run` into `folder`, where an unfinished sweep goes on; returns its seconds."""
    given = ["--data", args.data, "--time-budget", f"{args.seconds:g}s", "--seed", seed, "--quiet"]
    command = [sys.executable, "-m", "pipeline", "run", *given, *options]
    command += ["--name", folder.name, "--out", folder.parent]
    print(" ".join(map(str, command)), flush=True)
    started = time.monotonic()
    subprocess.run(list(map(str, command)), check=False)  # 1 where no trial was measured
    return time.monotonic() - started


def finished(folder: Path) -> SweepSummary | None:
    """The summary of a sweep that has ended; None for one that has not."""
    summary = read_summary(SweepPaths(folder).summary)
    return summary if summary is not None and summary.state == "finished" else None


# --- The enqueued points -------------------------------------------------------------------------


def manifest_at(folder: Path) -> Manifest:
    return read_existing(folder, SweepPaths(folder))


def best_enqueued(searched: Path) -> LeaderboardRow:
    """Of the trials of enqueued points, the one with the lowest fid in the search."""
    summary, points = read_summary(SweepPaths(searched).summary), manifest_at(searched).space.enqueue
    assert summary is not None
    for row in summary.leaderboard:  # best first
        if row.fid is not None and any(point.items() <= dict(row.params).items() for point in points):
            return row
    raise SystemExit(f"no enqueued point of {searched} was measured")


def write_point(searched: Path, path: Path) -> None:
    """A space with the best enqueued point alone: all values are fixed, one of them as its only choice."""
    manifest, row = manifest_at(searched), best_enqueued(searched)
    values: dict[str, object] = {**manifest.space.fixed, **row.params}
    if values.get("schedule") == "cosine" and not values.get("burn_in_kimg"):
        values["burn_in_kimg"] = float(str(values["kimg"]))  # as long as it was in the search
    searched_name = next(iter(row.params))
    only = {searched_name: {"choice": [values.pop(searched_name)]}}
    path.write_text(dump_toml({"fixed": values, "search": only}), encoding="utf-8")


def in_search_samples(searched: Path, trial: int, count: int) -> Tensor:
    """Samples of the trial's best generator as the search trained it."""
    generator, _ = best_generator(SweepPaths(searched).trial(trial))
    return labelled_image_sampler(generator, images_of(searched))(count, SAMPLE_SEED)[0]


# --- The judges ----------------------------------------------------------------------------------


def images_of(searched: Path) -> Dataset:
    return read_images(manifest_at(searched).config)


def distances(searched: Path, sample: Tensor, args: argparse.Namespace) -> Row:
    """The Frechet distances of the samples to the training images of the search."""
    dataset = images_of(searched)
    return {name: distance(name, dataset, sample) for name in args.judges}


def distance(judge: str, dataset: Dataset, sample: Tensor) -> float:
    evaluator = frechet.build_evaluator(dataset, extractors.build_extractor(judge, dataset), len(sample))
    blocks = iter(torch.split(sample, BATCH))
    found = evaluator.score(lambda _: next(blocks))
    return math.inf if found is None else found


# --- The table -----------------------------------------------------------------------------------


def print_table(rows: Sequence[Row], args: argparse.Namespace) -> None:
    """Distances, seconds and ratios of each seed by every judge, and the bars by the first one."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for seed in args.seeds:
        parts = {row["part"]: row for row in rows if row["seed"] == seed}
        print(f"\nseed {seed:<22}" + "".join(f"{j:>14}" for j in args.judges) + "   search s   wall s  kimg")
        for part, row in parts.items():
            print(f"  {part:<25}" + "".join(f"{row[judge]:14.4g}" for judge in args.judges) + seconds_of(row))
        for part in (RECIPE, ENQUEUED, IN_SEARCH):
            found = [parts[CHAMPION][judge] / parts[part][judge] for judge in args.judges]
            print(f"  champion / {part:<14}".ljust(27) + "".join(f"{ratio:14.2f}" for ratio in found))
            for judge, ratio in zip(args.judges, found, strict=True):
                ratios.setdefault((part, judge), []).append(ratio)
    print()
    for part, bar in BARS.items():
        found = ratios[part, args.judges[0]]
        mean = statistics.fmean(found)
        verdict = f"at most {bar}: {'reached' if mean <= bar else 'missed'}"
        print(f"champion / {part} by {args.judges[0]}: {mean:.2f} over {len(found)} seeds, {verdict}")


def seconds_of(row: Mapping[str, Any]) -> str:
    """Seconds of the search and of the whole command, as far as they are known, and the best tick's kimg."""
    search, wall = (f"{row[name]:.0f}" if name in row else "-" for name in ("search_seconds", "wall_seconds"))
    return f"{search:>11}{wall:>9}{row['kimg']:6.0f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
