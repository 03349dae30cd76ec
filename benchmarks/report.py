"""How long writing the report of 200 trials takes on one core, and how large the file is.

The records are made up (24 ticks each, grids of 50 colour images of 32 x 32 as noisy as photographs);
reading, drawing, encoding and writing are real.

    python benchmarks/report.py [--trials 200] [--keep DIR]
    python benchmarks/report.py --beside     # how much it slows down trials that train on all cores
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.config import SweepPaths, TrialConfig
from pipeline.data.dataset import load_dataset
from pipeline.records import METRICS, TrialRecord
from pipeline.reporting.explain.regions import value_at
from pipeline.reporting.html.report import write_report
from pipeline.search.space.builtin import load_space
from pipeline.search.space.definition import Space
from pipeline.search.space.toml import dump_toml
from pipeline.training.process import prepare_process
from pipeline.training.trainer import Trainer

TICKS, FULL, SIDE = 24, 240, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="keep the sweep and its report there")
    parser.add_argument("--beside", action="store_true", help="training speed with a report and without")
    args = parser.parse_args()
    if args.beside:
        measure_slowdown(args.trials)
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as scratch:
        root = (args.keep or Path(scratch)) / "sweep"
        make_sweep(root, args.trials, np.random.default_rng(0))
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        path = write_report(root)
        wall, cpu = time.perf_counter() - wall_start, time.process_time() - cpu_start
        size = path.stat().st_size / 1e6
        print(f"{args.trials} trials: {wall:.1f} s ({cpu:.1f} s of one core), {size:.2f} MB")


def measure_slowdown(trials: int, seconds: float = 8.0, rounds: int = 8) -> None:
    """Train a trial on every core, in turns alone (the report is stopped) and beside `gansweep report`.

    seconds: length of a turn; rounds: turns of each kind.
    """
    cores = multiprocessing.cpu_count()
    context = multiprocessing.get_context("spawn")
    counts = [context.Value("q", 0) for _ in range(cores)]
    workers = [context.Process(target=train, args=(count,), daemon=True) for count in counts]
    images = {False: 0, True: 0}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "sweep"
        make_sweep(root, trials, np.random.default_rng(0))
        summary = SweepPaths(root).summary
        summary.write_text(summary.read_text().replace('"finished"', '"running"', 1))
        for worker in workers:
            worker.start()
        while not all(count.value for count in counts):
            time.sleep(0.1)
        command = [sys.executable, "-m", "pipeline", "report", str(root)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for turn in range(2 * rounds):
            report_runs = bool(turn % 2)
            if process.poll() is not None:
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            process.send_signal(signal.SIGCONT if report_runs else signal.SIGSTOP)
            before = sum(count.value for count in counts)
            time.sleep(seconds)
            images[report_runs] += sum(count.value for count in counts) - before
        process.kill()
        for worker in workers:
            worker.terminate()
    alone, with_report = (images[key] / seconds / rounds for key in (False, True))
    print(
        f"{cores} cores training: {alone:.0f} images/s alone, {with_report:.0f} beside a report being written"
    )
    print(f"ratio {with_report / alone:.3f} (at least 0.97)")


def train(count: Any) -> None:
    """Train without end on one thread; `count` is the shared number of images so far."""
    prepare_process(1)
    dataset = load_dataset("digits")
    config = TrialConfig(width_g=32, width_d=32, kimg=10**6)
    trainer = Trainer(config, torch.from_numpy(dataset.train), None, 0)
    while True:
        trainer.advance(trainer.nimg // 1000 + 1)
        count.value = trainer.nimg


def make_sweep(root: Path, count: int, rng: np.random.Generator) -> None:
    """Write the files of a finished sweep over the default space."""
    space = load_space("mnist5k")
    paths = SweepPaths(root)
    root.mkdir(parents=True)
    trials = [make_trial(paths, number, space, rng) for number in range(count)]
    paths.config.write_text(dump_toml({"space": space.tables()}))
    paths.event_log.write_text("".join(json.dumps(event) + "\n" for events, _ in trials for event in events))
    rows = sorted((row for _, row in trials), key=lambda row: row["fid"])
    best = {key: rows[0][key] for key in ("trial", "fid", "balance", "kimg", "params")}
    states = [row["state"] for row in rows]
    summary = {
        "name": "sweep", "state": "finished", "wall_seconds": 1.0, "best": best, "leaderboard": rows[:100],
        "kimg_total": sum(row["last_kimg"] for row in rows), "trials_asked": count,
        "trials": {state: states.count(state) for state in ("complete", "pruned", "failed", "running")},
    }  # fmt: skip
    paths.summary.write_text(json.dumps(summary))


def make_trial(
    paths: SweepPaths, number: int, space: Space, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Write records and grids of one trial; return its events and its row of the leaderboard."""
    params: dict[str, Any] = {}
    for name, d in space.search.items():
        value = d.choices[rng.integers(len(d.choices))] if d.choices else value_at(d, rng.random())
        params[name] = round(value) if d.whole else value
    samples = paths.trial(number) / "samples"
    samples.mkdir(parents=True)
    ticks = TICKS if rng.random() < 0.4 else int(rng.integers(2, 12))
    start = 100 * (1 + abs(np.log10(params["lr_g"]) + 2.7)) * rng.uniform(0.8, 1.2)
    records = [make_record(number, i, start / (i + 1), rng) for i in range(ticks)]
    text = "".join(record.to_json() + "\n" for record in records)
    (paths.trial(number) / "records.jsonl").write_text(text)
    for record in records:
        draw_grid(rng).save(samples / f"{record.kimg:06d}.png")
    best, state = records[-1], "complete" if ticks == TICKS else "pruned"
    row = {
        "trial": number, "state": state, "fid": best.fid, "balance": best.balance, "auc": best.auc,
        "kimg": best.kimg, "last_kimg": best.kimg, "verdict": "healthy", "stability": 1.0, "params": params,
        "cause": "" if state == "complete" else f"pruned by asha at {best.kimg} kimg",
    }  # fmt: skip
    status = "FINISHED" if state == "complete" else "KILLED"
    events = [
        {"event": "start", "trial": number, "params": params},
        *({"event": "record", "trial": number, "record": record.to_dict()} for record in records),
        {"event": "end", "trial": number, "status": status, "cause": row["cause"]},
    ]
    return events, row


def make_record(trial: int, tick: int, fid: float, rng: np.random.Generator) -> TrialRecord:
    numbers = {name: float(rng.random()) for name in METRICS}
    kimg = (tick + 1) * FULL // TICKS
    given = {"fid": fid, "best_fid": fid, "objective": fid, "train_seconds": 2.0 * kimg}
    return TrialRecord(trial=trial, kimg=kimg, verdict="healthy", best_kimg=kimg, **{**numbers, **given})


def draw_grid(rng: np.random.Generator) -> Image.Image:
    """Ten by five pictures with soft shapes and noise, which compress about as well as photographs."""
    coarse = rng.integers(0, 256, (5 * 4, 10 * 4, 3), np.uint8)
    soft = Image.fromarray(coarse).resize((10 * SIDE, 5 * SIDE), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 8, (5 * SIDE, 10 * SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(soft) + grain, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    main()
