"""Non-finite numbers, and truncated checkpoints."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from faults.result import Result
from faults.sweeps import Sweep, check_stores
from pipeline.config import TrialConfig
from pipeline.data.dataset import load_dataset
from pipeline.metrics import extractors, frechet
from pipeline.training import trial
from pipeline.training.events import EventKind, TrialEvent

FAULTY_NETWORKS = '''"""Networks whose D produces a non-finite number once. depth_d chooses where (1 data,
2 loss, 3 gradients, 4 nowhere), z_dim after how many calls; an odd width_g makes it inf, an even one NaN."""

import torch
from torch import nn


class G(nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        self.size, self.channels = shape.size, shape.channels
        self.body = nn.Linear(config.z_dim, shape.channels * shape.size**2)

    def forward(self, z):
        return torch.tanh(self.body(z)).unflatten(1, (self.channels, self.size, self.size))


class D(nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(shape.channels * shape.size**2, 16), nn.ReLU())
        self.score = nn.Linear(16, 1)
        self.kind, self.left = config.depth_d, config.z_dim
        self.bad = float("inf") if config.width_g % 2 else float("nan")

    def forward(self, images):
        if self.training:
            self.left -= 1
        wrong = self.training and self.left == 0
        if wrong and self.kind == 1:
            images = images * self.bad
        scores = self.score(self.body(images)).squeeze(1)
        if wrong and self.kind == 2:
            scores = scores * self.bad
        if wrong and self.kind == 3 and scores.requires_grad:
            scores.register_hook(lambda gradient: gradient * self.bad)
        return scores


def build(config, shape):
    return G(config, shape), D(config, shape)
'''
KINDS = {1: "data", 2: "loss", 3: "gradients"}


def not_finite(folder: Path, times: int, rng: random.Random) -> Result:
    """In one sweep `times` trials of each kind, then a healthy one: each is pruned within one tick."""
    result = Result("NaN or inf in data, loss, gradients (each)")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faulty.py").write_text(FAULTY_NETWORKS)
    points = []
    for kind in KINDS:
        # One kimg is 15 steps of 64 images with two or three calls of D each: within the first four ticks.
        # No two are equal: Optuna skips points that are enqueued already.
        call_counts = rng.sample(range(6, 120), times)
        points += [
            {"depth_d": kind, "z_dim": calls, "width_g": 8 + index % 2}
            for index, calls in enumerate(call_counts)
        ]
    points.append({"depth_d": 4, "z_dim": 64, "width_g": 8})
    enqueued = "".join(
        "[[enqueue]]\n" + "".join(f"{k} = {v}\n" for k, v in point.items()) for point in points
    )
    (folder / "space.toml").write_text(
        "[fixed]\narchitecture = 'faulty:build'\nkimg = 8\ntick_kimg = 1\n"
        "[search]\ndepth_d = { int = [1, 4] }\nz_dim = { int = [2, 200] }\nwidth_g = { int = [2, 16] }\n"
        + enqueued
    )
    flags = ("--trials", str(len(points)), "--pruner", "none", "--concurrency", "1", "--extractor", "pixels")
    sweep = Sweep(folder / "out", *flags, space=str(folder / "space.toml"), name="n")
    sweep.start()
    result.expect(sweep.end() == 0, f"the sweep failed: {sweep.stderr[-300:]}")
    check_stores(result, sweep, len(points))
    board = {row["trial"]: row for row in sweep.summary["leaderboard"]}
    for number, point in enumerate(points[:-1]):
        rows = sweep.records(number)
        result.injected += 1
        named = f"{KINDS[point['depth_d']]}, trial {number}"
        result.expect(board[number]["state"] == "pruned", f"{named}: {board[number]['state']}")
        result.expect(
            [r.verdict for r in rows].count("diverged") == 1, f"{named}: {[r.verdict for r in rows]}"
        )
        result.expect(rows[-1].verdict == "diverged", f"{named}: went on")
        result.times.append(rows[-1].train_seconds - (rows[-2].train_seconds if len(rows) > 1 else 0.0))
    result.expect(board[len(points) - 1]["state"] == "complete", "the healthy trial did not end normally")
    return result


def cut_checkpoints(folder: Path, times: int, rng: random.Random) -> Result:
    """Truncate a trial's newest checkpoint at a random byte: the one before is used, the records agree."""
    result = Result("checkpoint truncated at a random byte")
    dataset = load_dataset("digits")
    evaluator = frechet.build_evaluator(dataset, extractors.build_extractor("pixels", dataset), 100)
    config = TrialConfig(architecture="mlp", width_g=16, width_d=16, kimg=4, tick_kimg=1)
    uninterrupted = [
        record.fid for record in trial.run_trial(config, dataset, evaluator, folder / "uninterrupted")
    ]
    for index in range(times):
        trial_folder = folder / str(index)
        running = trial.run_trial(config, dataset, evaluator, trial_folder)
        for _ in range(3):
            next(running)
        running.close()
        newest = max(trial_folder.glob("state-*.pt"))
        with newest.open("rb+") as file:
            file.truncate(rng.randrange(newest.stat().st_size))
        result.injected += 1
        events: list[TrialEvent] = []
        again = list(
            trial.run_trial(
                config, dataset, evaluator, trial_folder, trial.TrialSettings(on_event=events.append)
            )
        )
        damaged = [event.text for event in events if event.kind is EventKind.DAMAGED_CHECKPOINT]
        result.expect(any(newest.name in text for text in damaged), "the damaged file was not named")
        result.expect([record.kimg for record in again] == [2, 3, 4], "the checkpoint before was not used")
        result.expect(
            bool(np.allclose([r.fid for r in again], uninterrupted[1:], rtol=1e-6)), "the records differ"
        )
        result.times.append(again[1].train_seconds - again[0].train_seconds)
    return result
