"""The R3GAN recipe on colour images at 32 and 64 px: the fid over time, and a grid of samples.

One trial for each size, as in a sweep, for a given number of seconds. `--extractor pixels` where timm and
the weights of EfficientNet-Lite0 are not installed.

    python benchmarks/colour.py --data folder:PICTURES
    python benchmarks/colour.py --data npz:icons.npz --seconds 60 --out colour
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
from pipeline.data.dataset import load_dataset
from pipeline.data.options import DataOptions
from pipeline.metrics import extractors, frechet
from pipeline.search import recipes
from pipeline.training import trial
from pipeline.training.checkpoint import grid_path
from pipeline.training.cuda_graphs import SWITCH

FIELDS = ("kimg", "fid", "balance", "images_per_sec", "train_seconds", "eval_seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", required=True, help="a data source of gansweep's")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--kimg", type=int, nargs="+", default=[1000, 500], help="for each size")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each size, at most")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--extractor", default="efficientnet", help="of the fid")
    parser.add_argument("--samples", type=int, default=2000, help="of each fid")
    parser.add_argument("--out", type=Path, default=Path("colour"))
    args = parser.parse_args()
    os.environ.setdefault(SWITCH, "1")
    args.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for size, kimg in zip(args.sizes, args.kimg, strict=True):
        found[str(size)] = train(size, kimg, args)
        (args.out / "colour.json").write_text(json.dumps(found, indent=1))


def train(size: int, kimg: int, args: argparse.Namespace) -> dict[str, Any]:
    """The records of a trial at `size` px until its time is over; the last grid is copied to the results."""
    dataset = load_dataset(args.data, DataOptions(size=size))
    extractor = extractors.build_extractor(args.extractor, dataset)
    evaluator = frechet.build_evaluator(dataset, extractor, args.samples).to(args.device)
    rows, began = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        settings = trial.TrialSettings(
            device=args.device, should_stop=lambda: time.perf_counter() - began > args.seconds
        )
        records = trial.run_trial(config_of(size, kimg, args), dataset, evaluator, Path(folder), settings)
        for record in records:
            rows.append(
                {name: getattr(record, name) for name in FIELDS} | {"wall": time.perf_counter() - began}
            )
            print(size, ", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
            shutil.copy(grid_path(Path(folder), record.kimg), args.out / f"samples-{size}.png")
    return {"extractor": extractor.name, "images": len(dataset.train), "records": rows}


def config_of(size: int, kimg: int, args: argparse.Namespace) -> TrialConfig:
    """R3GAN's recipe; gamma as published for the size, an EMA half-life for a short run."""
    recipe = recipes.load_recipe("r3gan").at(size, False, {"batch_size": args.batch})
    wanted = {"kimg": kimg, "tick_kimg": max(kimg // 20, 1), "precision": "bfloat16", "seed": 1}
    sizes = {
        "width_g": args.width,
        "width_d": args.width,
        "batch_size": args.batch,
        "ema_halflife_kimg": 50.0,
    }
    return TrialConfig.from_dict({**recipe, **sizes, **wanted, "gamma": 0.05 if size <= 32 else 1.0})


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    main()
