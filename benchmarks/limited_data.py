"""What helps a GAN that has only a few colour images: augmentation, mirroring, penalties, over three seeds.

Every arm trains the same small DCGAN on the same few images of a labelled colour set, at 32 px. The Frechet
distances are to all the *other* images of the set, without copies of one another, so that a generator which
learns its training images by heart gains nothing: in `efficientnet`, and in the classifier that is trained on
the labels of the whole set. `r1` is the baseline; every other arm changes one thing of it.
- lowest: the distance of the best look, as a search would keep it; end: that of the last one.
- overfit: how often D ranks a training image above a held-out one, at the end; 0.5 = not at all.
- auc: how often D ranks a held-out image above a sample, at the end; 1 = D has won.

    python benchmarks/limited_data.py --data folder:icons                     # half an hour on one idle core
    python benchmarks/limited_data.py --data folder:icons --json runs.jsonl   # goes on where it was cut off
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from json_lines import add_line, read_lines
from torch import Tensor

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.data.options import DataOptions
from pipeline.metrics import extractors, frechet
from pipeline.metrics.statistics import BATCH, FeatureStatistics
from pipeline.training.process import prepare_process
from pipeline.training.sampling import image_sampler
from pipeline.training.trainer import Trainer

BASE: dict[str, Any] = {
    "architecture": "dcgan", "width_g": 16, "width_d": 16, "z_dim": 64, "batch_size": 32,
    "lr_g": 1e-3, "lr_d": 1e-3, "beta1": 0.0, "beta2": 0.99, "precision": "bfloat16",
    "penalty": "r1", "penalty_interval": 8, "ema_halflife_kimg": 5.0,
}  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    "r1": {},
    "no penalty": {"penalty": "none"},
    "r1 + diffaugment": {"augment": "diffaugment"},
    "r1 + ada": {"augment": "ada", "augment_kimg": 20.0},  # quicker than its default: the runs are short
    "r1 + mirror": {"mirror": True},
    "r1 + r2": {"penalty": "r1r2"},
}
MEASURES = ("efficientnet", "classifier")
READING_KIMG = 4  # between two readings of the balance, to which ADA adapts
Run = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", required=True, help="a colour data source, as `gansweep run --data`")
    parser.add_argument("--size", type=int, default=32, help="of the images in pixels")
    parser.add_argument("--images", type=int, default=250, help="that are trained on")
    parser.add_argument("--kimg", type=int, default=96)
    parser.add_argument("--look-kimg", type=int, default=24, help="between two measurements")
    parser.add_argument("--gamma", type=float, default=1.0, help="strength of the penalty")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--samples", type=int, default=1000, help="of each distance")
    parser.add_argument("--json", type=Path, help="a JSON line for each run; those in it are not run again")
    args = parser.parse_args()
    prepare_process(1)
    whole = load_dataset(args.data, DataOptions(size=args.size))
    dataset, others = few_images(whole, args.images)
    measures = {name: Measure.of(name, whole, others) for name in MEASURES}
    print(f"{args.data}: {len(dataset.train)} images of {args.size} px, {args.kimg} kimg, gamma {args.gamma}")
    print(f"distances of {args.samples} samples to {len(others)} other images", flush=True)
    runs = read_lines(args.json)
    for seed in args.seeds:
        for arm in args.only:
            if any(run["arm"] == arm and run["seed"] == seed for run in runs):
                continue
            run = {"arm": arm, "seed": seed, **train(arm, seed, dataset, measures, args)}
            add_line(args.json, run)
            runs.append(run)
    for name in MEASURES:
        print_table(runs, name)


def few_images(dataset: Dataset, count: int) -> tuple[Dataset, np.ndarray]:
    """The data set with `count` training images and no labels, and all its other images.

    Copies of one another are left out of both; which images are taken depends on nothing but the data.
    """
    order = np.random.default_rng(0).permutation(dataset.different)
    few, rest = dataset.train[order[:count]], dataset.train[order[count:]]
    unlabelled = {"train_labels": None, "held_labels": None, "train_groups": None, "classes": ()}
    smaller = replace(dataset, train=np.ascontiguousarray(few), **unlabelled)
    return smaller, np.concatenate([rest, dataset.held])


@dataclass(frozen=True)
class Measure:
    """An extractor, and the images to which distances are measured in it."""

    extractor: extractors.Extractor
    real: frechet.RealFactor

    @classmethod
    def of(cls, name: str, dataset: Dataset, images: np.ndarray) -> Measure:
        """By the extractor of that name for `dataset`, to `images` uint8 (N,H,W,C)."""
        extractor = extractors.build_extractor(name, dataset)
        features = _features(extractor, torch.from_numpy(images))
        return cls(extractor, frechet.RealFactor.of(FeatureStatistics.of(features)))

    def distance(self, images: Tensor) -> float:
        """Of uint8 (n,H,W,C)."""
        return frechet.frechet_of(self.real, _features(self.extractor, images))


def _features(extractor: extractors.Extractor, images: Tensor) -> Tensor:
    return torch.cat([extractor(block) for block in torch.split(images, BATCH)])


def train(
    arm: str, seed: int, dataset: Dataset, measures: Mapping[str, Measure], args: argparse.Namespace
) -> Run:
    """Train one arm; its distances at every look by each measure, and D's readings at the end."""
    values = {**BASE, "gamma": args.gamma, **ARMS[arm], "seed": seed, "kimg": args.kimg}
    trainer = Trainer(TrialConfig.from_dict(values), torch.from_numpy(dataset.train), None, 0)
    held, started, looks = torch.from_numpy(dataset.held), time.perf_counter(), {n: [] for n in measures}
    for kimg in range(READING_KIMG, args.kimg + 1, READING_KIMG):
        trainer.advance(kimg)
        reading = trainer.read_balance(held, None)
        trainer.adapt(reading)
        if kimg % args.look_kimg == 0 or kimg == args.kimg:
            images = image_sampler(trainer.ema.generator, dataset)(args.samples)
            for name, measure in measures.items():
                looks[name].append(measure.distance(images))
    adaptive = {"ada_p": trainer.ada_p} if ARMS[arm].get("augment") == "ada" else {}
    return {
        "looks": looks,
        "overfit": reading.overfit,
        "auc": reading.auc,
        **adaptive,
        "seconds": time.perf_counter() - started,
    }


def print_table(runs: Sequence[Run], name: str) -> None:
    """Means over seeds, the seeds' values, and the ratios to the baseline; below 1 = it helps."""
    seeds = len({run["seed"] for run in runs})
    heads = (
        f"{'lowest':>9}{'of r1':>7}   {'seeds':<{9 * seeds}}{'end':>9}{'of r1':>7}{'overfit':>9}{'auc':>6}"
    )
    print(f"\n{name:<18}{heads}")
    base: tuple[float, float] | None = None
    for arm in ARMS:
        group = [run for run in runs if run["arm"] == arm]
        if not group:
            continue
        lowest = [min(run["looks"][name]) for run in group]
        means = statistics.fmean(lowest), statistics.fmean(run["looks"][name][-1] for run in group)
        base = base or means
        overfit, auc = (statistics.fmean(run[key] for run in group) for key in ("overfit", "auc"))
        values = "".join(f"{value:<9.4g}" for value in lowest)
        first = f"{means[0]:9.4g}{means[0] / base[0]:7.2f}   {values:<{9 * seeds}}"
        print(f"{arm:<18}{first}{means[1]:9.4g}{means[1] / base[1]:7.2f}{overfit:9.2f}{auc:6.2f}")


if __name__ == "__main__":
    main()
