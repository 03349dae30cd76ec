"""The points that `photos` tries first on a GPU, each trained for the same time: the fid over time, samples.

Each point is one trial, as in a sweep: ticks, fids, balance, pictures, checkpoints; its length is the
space's, and it is stopped after `--seconds`. The space needs gansweep's dependencies; where only torch is
installed, the points come from a file that was written elsewhere.

    python benchmarks/colour.py --data folder:PICTURES --seconds 90
    python benchmarks/colour.py --data npz:icons.npz --write points.json      # writes the points and ends
    python benchmarks/colour.py --data npz:icons.npz --points points.json     # needs torch and timm alone
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.data.options import DataOptions
from pipeline.metrics import extractors, frechet
from pipeline.training import trial
from pipeline.training.checkpoint import grid_path
from pipeline.training.cuda_graphs import SWITCH

FIELDS = ("kimg", "fid", "balance", "images_per_sec", "train_seconds", "eval_seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", required=True, help="a data source of gansweep's")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=90.0, help="for each point, at most")
    parser.add_argument("--write", type=Path, help="write the points to this file and end")
    parser.add_argument("--points", type=Path, help="read the points from this file")
    parser.add_argument("--only", nargs="+", help="architectures")
    parser.add_argument("--tick", type=int, help="kimg between two looks (the space's)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--extractor", default="efficientnet", help="of the fid")
    parser.add_argument("--samples", type=int, default=2000, help="of each fid")
    parser.add_argument("--out", type=Path, default=Path("colour"))
    args = parser.parse_args()
    dataset = load_dataset(args.data, DataOptions(size=args.size))
    if args.write:
        args.write.write_text(json.dumps(first_points(dataset), indent=1))
        return
    os.environ.setdefault(SWITCH, "1")
    args.out.mkdir(parents=True, exist_ok=True)
    points = json.loads(args.points.read_text()) if args.points else first_points(dataset)
    extractor = extractors.build_extractor(args.extractor, dataset)
    evaluator = frechet.build_evaluator(dataset, extractor, args.samples).to(args.device)
    found: dict[str, Any] = {"images": len(dataset.train), "extractor": extractor.name}
    for point in points:
        if not args.only or point["architecture"] in args.only:
            found[point["architecture"]] = {"point": point, "records": train(point, dataset, evaluator, args)}
            (args.out / "colour.json").write_text(json.dumps(found, indent=1))


def first_points(dataset: Dataset) -> list[dict[str, Any]]:
    """The enqueued points of `photos` on a GPU for these images, complete."""
    from pipeline.search.space.builtin import load_builtin
    from pipeline.sweep.space_choice import facts_of

    space = load_builtin("photos").on_images(facts_of(dataset, "gpu"))
    return [space.config(point, seed=1).to_dict() for point in space.enqueue]


def train(
    point: dict[str, Any], dataset: Dataset, evaluator: frechet.Evaluator, args: argparse.Namespace
) -> list[dict[str, float]]:
    """The records of a trial until its time is over; its newest grid is copied to the results."""
    config = TrialConfig.from_dict(point | ({"tick_kimg": args.tick} if args.tick else {}))
    rows, began = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        settings = trial.TrialSettings(
            device=args.device, should_stop=lambda: time.perf_counter() - began > args.seconds
        )
        for record in trial.run_trial(config, dataset, evaluator, Path(folder), settings):
            row = {name: getattr(record, name) for name in FIELDS}
            rows.append(row | {"wall": time.perf_counter() - began})
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items())
            print(config.architecture, numbers, flush=True)
            grid = grid_path(Path(folder), record.kimg)
            shutil.copy(grid, args.out / f"samples-{config.architecture}.png")
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    main()
