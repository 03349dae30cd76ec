"""Tables of real trials, on which searches are replayed (`replay.py`).

For each data set, configurations are drawn at random from its wide space (`tables/NAME.toml`) and trained to
their full length, one thread each; the first ones also with two other seeds, so that the noise is known.
Every tick's fid, balance, verdict and seconds are kept. Seconds are CPU seconds of the trial's process: what
else runs on the machine does not change them. On a GPU they are seconds of the clock.

A trial that has ended is a line of WORK/NAME.jsonl and is not trained again: the same command goes on.

    python benchmarks/make_tables.py digits mnist5k icons --icons DIR     # all cores; hours
    python benchmarks/make_tables.py digits --configs 20 --out short      # minutes
    python benchmarks/make_tables.py icons --icons DIR --device cuda
    python benchmarks/make_tables.py digits mnist5k icons --write         # parquet from what has ended so far
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from json_lines import add_line, read_lines

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.data.options import DataOptions
from pipeline.metrics import extractors, frechet
from pipeline.search.space.definition import Space
from pipeline.search.space.parser import parse_space
from pipeline.search.study import suggest_params
from pipeline.training.trial import TrialSettings, run_trial

TABLES = Path(__file__).parent / "tables"
SAMPLES = 500
"""Generated images of a fid: few, since most of a short trial would be measuring otherwise."""
EXTRACTOR = "classifier"


@dataclass(frozen=True)
class TableSet:
    """A data set with a table. configs: drawn. repeated: of them, with `SEEDS`. image_size: 0 = its own."""

    configs: int
    repeated: int
    image_size: int = 0


SETS = {
    "digits": TableSet(configs=1000, repeated=20),
    "mnist5k": TableSet(configs=250, repeated=7),
    "icons": TableSet(configs=150, repeated=5, image_size=32),
}
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Job:
    """One trial: configuration number `config` of a set, with a seed."""

    set_name: str
    config: int
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("sets", nargs="+", choices=SETS)
    parser.add_argument("--icons", type=Path, help="the folder that tests/support/icons.py writes")
    parser.add_argument("--configs", type=int, help="of each set, instead of its own number")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="trials at a time")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--work", type=Path, default=Path("build/tables"), help="folder of what has ended")
    parser.add_argument("--out", type=Path, default=TABLES, help="folder of the parquet files")
    parser.add_argument("--write", action="store_true", help="train nothing: write the parquet files")
    args = parser.parse_args()
    if not args.write:
        train_missing(args)
    for name in args.sets:
        write_table(name, args.work / f"{name}.jsonl", args.out)


# --- The trials ----------------------------------------------------------------------------------


def train_missing(args: argparse.Namespace) -> None:
    """Train what has no line yet; one set's share of what is done never runs far ahead of another's."""
    jobs, done = [], 0
    for name in args.sets:
        ended = {(row["config"], row["seed"]) for row in read_lines(args.work / f"{name}.jsonl")}
        of_set = list(jobs_of(name, args.configs))
        done += len(ended)
        jobs += [
            (i / len(of_set), job) for i, job in enumerate(of_set) if (job.config, job.seed) not in ended
        ]
        images_of(name, args.icons)  # once, before several processes read the cache
    total, started = len(jobs) + done, time.monotonic()
    args.work.mkdir(parents=True, exist_ok=True)
    ordered = [job for _, job in sorted(jobs, key=lambda pair: pair[0])]
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        try:
            arguments = ([args.icons] * len(ordered), [args.device] * len(ordered))
            for job, row in zip(ordered, pool.map(train, ordered, *arguments), strict=True):
                add_line(args.work / f"{job.set_name}.jsonl", row, quiet=True)
                done += 1
                hours = (time.monotonic() - started) / 3600
                print(f"{done}/{total} {hours:.2f} h {job} fid {row['ticks'][-1]['fid']}", flush=True)
        except BrokenProcessPool as error:
            raise SystemExit(f"a process died ({error}); the same command goes on") from error


def jobs_of(name: str, configs: int | None) -> Iterator[Job]:
    """Every configuration with the first seed, the repeated ones with all."""
    table = SETS[name]
    for config in range(configs or table.configs):
        for seed in SEEDS if config < table.repeated else SEEDS[:1]:
            yield Job(name, config, seed)


def train(job: Job, icons: Path | None, device: str) -> dict[str, Any]:
    """One trial to its full length: its parameters and ticks as plain values."""
    dataset, evaluator = images_of(job.set_name, icons)
    warm_up(dataset, evaluator, device)
    space = table_space(job.set_name)
    params = draw(space, job.config)
    ticks = train_ticks(space.config(params, seed=job.seed), dataset, evaluator, device)
    return {"config": job.config, "seed": job.seed, "params": params, "ticks": ticks}


def train_ticks(
    config: TrialConfig, dataset: Dataset, evaluator: frechet.Evaluator, device: str
) -> list[dict[str, Any]]:
    """A trial's ticks: kimg, fid, balance, verdict, and seconds from its start."""
    clock = time.process_time if device == "cpu" else time.monotonic
    ticks: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="table-") as folder:
        started = clock()
        settings = TrialSettings(device=device)
        for record in run_trial(config, dataset, evaluator.to(device), Path(folder), settings):
            tick = {name: getattr(record, name) for name in ("kimg", "fid", "balance", "verdict")}
            tick["balance"] = None if math.isnan(tick["balance"]) else tick["balance"]
            ticks.append({**tick, "seconds": round(clock() - started, 4)})
    return ticks


_warm: set[str] = set()


def warm_up(dataset: Dataset, evaluator: frechet.Evaluator, device: str) -> None:
    """Once in a process: the first trial pays for what libraries load, and no recorded one is to."""
    if device not in _warm:
        _warm.add(device)
        with tempfile.TemporaryDirectory(prefix="table-") as folder:
            settings = TrialSettings(device=device)
            list(run_trial(TrialConfig(kimg=1), dataset, evaluator.to(device), Path(folder), settings))


@cache
def table_space(name: str) -> Space:
    return parse_space((TABLES / f"{name}.toml").read_text(encoding="utf-8"), name)


def images_of(name: str, icons: Path | None) -> tuple[Dataset, frechet.Evaluator]:
    """The images of a set and their evaluator."""
    if name == "icons" and icons is None:
        raise SystemExit("give --icons DIR, where `python tests/support/icons.py DIR` wrote them")
    return open_images(f"folder:{icons}" if name == "icons" else name, SETS[name].image_size)


@cache
def open_images(source: str, size: int) -> tuple[Dataset, frechet.Evaluator]:
    """Images of `size` pixels and their evaluator, once in a process."""
    dataset = load_dataset(source, DataOptions(size=size))
    return dataset, frechet.build_evaluator(dataset, extractors.build_extractor(EXTRACTOR, dataset), SAMPLES)


def draw(space: Space, number: int) -> dict[str, Any]:
    """Configuration `number` of a space: a random draw that depends on the number alone."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    return dict(suggest_params(space, study.ask()))


# --- The parquet files ---------------------------------------------------------------------------


def write_table(name: str, lines: Path, folder: Path) -> None:
    """Write NAME.parquet: a row per tick; the parameters are columns, empty where their condition fails."""
    rows = sorted(read_lines(lines), key=lambda row: (row["config"], row["seed"]))
    if not rows:
        print(f"{name}: no trial has ended yet")
        return
    flat = [
        {"config": row["config"], "seed": row["seed"], **tick, **row["params"]}
        for row in rows
        for tick in row["ticks"]
    ]
    frame = pd.DataFrame(flat).astype({"config": "int32", "seed": "int8", "kimg": "int32"})
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{name}.parquet.new"
    frame.to_parquet(fresh, compression="zstd", index=False)
    fresh.replace(folder / f"{name}.parquet")
    configs, hours = frame["config"].nunique(), sum(row["ticks"][-1]["seconds"] for row in rows) / 3600
    size = (folder / f"{name}.parquet").stat().st_size / 1e6
    print(f"{name}: {configs} configurations, {len(rows)} trials, {hours:.2f} h, {size:.2f} MB")


if __name__ == "__main__":
    main()
