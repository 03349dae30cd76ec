"""Every built-in recipe on 5,000 digits for the same time on one thread: fid, balance, kimg per second.

All networks are conditional and as small as in the default space (width 16 in G, 32 in D); the architecture
(R3GAN's residual networks), norms, batch size and losses are those of the recipe. There are two rows for
each: as published, and with a learning rate of 2e-3 for both networks, since published rates are meant for
days on GPUs. The time is that of the thread (on an idle core the wall clock) and excludes only the fids.
`tuned` is the first enqueued point of the default space.

    python benchmarks/recipes.py                          # a minute for each row
    python benchmarks/recipes.py --seconds 20 --only r1 tuned --published
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.metrics import extractors, frechet
from pipeline.search import recipes
from pipeline.search.space.builtin import load_space
from pipeline.training.process import prepare_process
from pipeline.training.sampling import image_sampler
from pipeline.training.trainer import Trainer

NETWORKS = {"width_g": 16, "width_d": 32, "z_dim": 64, "conditional": True}
LEARNING_RATES = {"lr_g": 2e-3, "lr_d": 2e-3}
EXPECTED_KIMG = 60  # length of the schedules, in recipes that have them


def main() -> None:
    names = [*recipes.builtin_recipes(), "tuned"]
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="training time of each row")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--published", action="store_true", help="leave out the rows with raised rates")
    parser.add_argument("--precision", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--samples", type=int, default=2000, help="generated images per fid")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    prepare_process(1)
    dataset = load_dataset("mnist5k")
    evaluator = frechet.build_evaluator(dataset, extractors.build_extractor("auto", dataset), args.samples)
    fid_by = f"fid: {evaluator.extractor_name} {evaluator.hash}, N={args.samples}"
    print(f"mnist5k, one thread, {args.seconds:g} s of training each, {args.precision}; {fid_by}")
    print(f"{'recipe':<26}{'fid':>9}{'balance':>9}{'auc':>7}{'overfit':>9}{'kimg':>7}{'kimg/s':>8}")
    for name in args.only:
        for changes in ({},) if args.published or name == "tuned" else ({}, LEARNING_RATES):
            row = train(settings(name, dataset, args) | changes, dataset, evaluator, args.seconds)
            label = f"{name}, lr 2e-3" if changes else name
            cells = f"{row['fid']:9.2f}{row['balance']:9.2f}{row['auc']:7.2f}{row['overfit']:9.2f}"
            print(f"{label:<26}{cells}{row['kimg']:7.0f}{row['kimg'] / args.seconds:8.2f}", flush=True)


def settings(name: str, dataset: Dataset, args: argparse.Namespace) -> dict[str, Any]:
    """The settings of one row that differ from the defaults."""
    basic = {**NETWORKS, "precision": args.precision, "seed": args.seed, "kimg": EXPECTED_KIMG}
    if name == "tuned":
        space = load_space("mnist5k")
        return {**space.fixed, **space.enqueue[0], **basic}
    return {**basic, **recipes.load_recipe(name).at(dataset.size, dataset.labelled, {})}


def train(
    changes: dict[str, Any], dataset: Dataset, evaluator: frechet.Evaluator, seconds: float
) -> dict[str, float]:
    """Train for `seconds` in ticks of a kimg, then measure once."""
    labels = torch.from_numpy(dataset.train_labels)
    trainer = Trainer(
        TrialConfig.from_dict(changes), torch.from_numpy(dataset.train), labels, len(dataset.classes)
    )
    deadline = time.thread_time() + seconds
    while time.thread_time() < deadline:
        trainer.advance(trainer.nimg // 1000 + 1, lambda: time.thread_time() >= deadline)
    held, held_labels = torch.from_numpy(dataset.held), torch.from_numpy(dataset.held_labels)
    reading = trainer.read_balance(held, held_labels)
    value = evaluator.score(image_sampler(trainer.ema.generator, dataset))
    return {
        "fid": float("nan") if value is None else value,
        "balance": reading.balance,
        "auc": reading.auc,
        "overfit": reading.overfit,
        "kimg": trainer.nimg / 1000,
    }


if __name__ == "__main__":
    main()
