"""Whether the extractors agree on which generator is better: rank correlations of their Frechet distances.

On each of two data sets, labelled digits at 28 px and labelled colour pictures at 32 px, random points of the
default space (narrow networks, one thread) are trained for the same few kimg. The same samples of every EMA
generator are then measured in each extractor: `efficientnet`, the `classifier` that is trained on the set's
own labels and sees no generated image, and `pixels`. Spearman's correlation is over the generators of a set;
for both sets together, over the ranks within each set, because distances of two data sets cannot be compared.
The intervals hold 95 % of 2,000 bootstrap resamples of the generators of each set.

    python benchmarks/rank_agreement.py --data mnist5k folder:icons                    # 15 minutes, one core
    python benchmarks/rank_agreement.py --data mnist5k folder:icons --json out.jsonl   # goes on where cut off
    python benchmarks/rank_agreement.py --sweeps runs/digits runs/icons   # the trials of real sweeps

With `--sweeps` nothing is trained: the best generators of all trials that were measured at least once.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from json_lines import add_line, read_lines
from rungs import configurations
from torch import Tensor

from pipeline.config import SweepPaths, TrialConfig
from pipeline.data.dataset import Dataset, load_dataset, to_float
from pipeline.data.options import DataOptions
from pipeline.metrics import extractors, frechet
from pipeline.metrics.frechet import Evaluator
from pipeline.metrics.loading import read_images
from pipeline.metrics.statistics import BATCH
from pipeline.sweep.manifest import read_existing
from pipeline.training.checkpoint import best_generator
from pipeline.training.process import prepare_process
from pipeline.training.sampling import image_sampler
from pipeline.training.trainer import Trainer

EXTRACTORS = ("efficientnet", "classifier", "pixels")
COLOUR_SIZE = 32
DRAWS = 2000
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", nargs="+", help="labelled data sources; colour ones at 32 px")
    what.add_argument("--sweeps", nargs="+", type=Path, help="folders of sweeps on labelled images")
    parser.add_argument("--generators", type=int, default=16, help="of each data set")
    parser.add_argument("--kimg", type=int, default=16, help="that each is trained for")
    parser.add_argument("--samples", type=int, default=2000, help="of each distance")
    parser.add_argument("--seed", type=int, default=5, help="of the draws from the space")
    parser.add_argument(
        "--json", type=Path, help="a JSON line for each generator; those in it are not run again"
    )
    args = parser.parse_args()
    prepare_process(1)
    rows = read_lines(args.json)
    if args.sweeps:
        rows = [row for folder in args.sweeps for row in measure_sweep(folder, args)]
        return print_tables(list(dict.fromkeys(row["data"] for row in rows)), rows)
    for source in args.data:
        measure_set(source, rows, args)
    return print_tables(args.data, [row for row in rows if row["kimg"] == args.kimg])


def measure_sweep(folder: Path, args: argparse.Namespace) -> list[Row]:
    """The distances of the best generator of every trial of a sweep, at the sweep's own size."""
    config = read_existing(str(folder), SweepPaths(folder)).config
    dataset = read_images(config)
    evaluators = evaluators_of(dataset, args.samples)
    rows = []
    for trial in sorted(int(path.name) for path in (folder / "trials").iterdir()):
        if not list(SweepPaths(folder).trial(trial).glob("best-*")):
            continue
        generator, _ = best_generator(SweepPaths(folder).trial(trial))
        images = image_sampler(generator, dataset)(args.samples)
        row = {"data": config.data, "generator": f"{folder.name}/{trial}"}
        rows.append(row | {name: distance(evaluator, images) for name, evaluator in evaluators.items()})
        add_line(args.json, rows[-1])
    return rows


def evaluators_of(dataset: Dataset, samples: int) -> dict[str, Evaluator]:
    """By the name of the extractor."""
    built = {name: extractors.build_extractor(name, dataset) for name in EXTRACTORS}
    right = accuracy(built["classifier"], dataset)
    print(f"{dataset.source}: the classifier is right on {right:.0%} of the held-out images", flush=True)
    return {name: frechet.build_evaluator(dataset, built[name], samples) for name in built}


def measure_set(source: str, rows: list[Row], args: argparse.Namespace) -> None:
    """Train and measure the generators of a data set that `rows` does not have yet; adds them to it."""
    done = {row["generator"] for row in rows if (row["data"], row["kimg"]) == (source, args.kimg)}
    configs = configurations(args.generators, args.kimg, args.seed)
    left = [index for index in range(len(configs)) if index not in done]
    if not left:
        return
    dataset = load_dataset(source)
    if dataset.channels == 3:
        dataset = load_dataset(source, DataOptions(size=COLOUR_SIZE))
    evaluators = evaluators_of(dataset, args.samples)
    for index in left:
        started = time.perf_counter()
        images = train_and_sample(configs[index], dataset, args.samples)
        distances = {name: distance(evaluator, images) for name, evaluator in evaluators.items()}
        seconds = time.perf_counter() - started
        row = {"data": source, "kimg": args.kimg, "generator": index, **distances, "seconds": seconds}
        add_line(args.json, row)
        rows.append(row)


def accuracy(classifier: Any, dataset: Dataset) -> float:
    """Of the network of the classifier extractor, on the images that are held out."""
    with torch.inference_mode():
        logits = classifier.net.classes(classifier.net.hidden(to_float(torch.from_numpy(dataset.held))))
    return float((logits.argmax(1).numpy() == dataset.held_labels).mean())


def train_and_sample(config: TrialConfig, dataset: Dataset, samples: int) -> Tensor:
    """Samples uint8 (n,H,W,C) of the averaged generator of a trained point."""
    labels = torch.from_numpy(dataset.train_labels)
    trainer = Trainer(config, torch.from_numpy(dataset.train), labels, len(dataset.classes))
    trainer.advance(config.kimg)
    return image_sampler(trainer.ema.generator, dataset)(samples)


def distance(evaluator: Evaluator, images: Tensor) -> float:
    """Infinite for features that are not finite: such a generator ranks last."""
    blocks = iter(torch.split(images, BATCH))
    found = evaluator.score(lambda _: next(blocks))
    return math.inf if found is None else found


def print_tables(sources: Sequence[str], rows: Sequence[Row]) -> None:
    """The distances, and the rank correlations of each pair of extractors with their intervals."""
    print(f"\n{'data':<24}{'generator':>14}" + "".join(f"{name:>14}" for name in EXTRACTORS))
    for row in rows:
        print(
            f"{row['data'][-23:]:<24}{row['generator']:>14}" + "".join(f"{row[e]:14.4g}" for e in EXTRACTORS)
        )
    print(f"\n{'rank correlation of':<28}" + "".join(f"{name[-22:]:>24}" for name in (*sources, "together")))
    for first, second in itertools.combinations(EXTRACTORS, 2):
        sets = [[(r[first], r[second]) for r in rows if r["data"] == source] for source in sources]
        pairs = [np.array(pairs) for pairs in sets if len(pairs) > 3]
        cells = [interval([pair]) for pair in pairs] + [interval(pairs)]
        print(f"{first + ', ' + second:<28}" + "".join(f"{cell:>24}" for cell in cells))


def interval(sets: Sequence[np.ndarray]) -> str:
    """The correlation over sets of distances float (n,2), with its bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = [
        correlation([pairs[rng.integers(0, len(pairs), len(pairs))] for pairs in sets]) for _ in range(DRAWS)
    ]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return f"{correlation(sets):.2f} [{low:.2f}, {high:.2f}]"


def correlation(sets: Sequence[np.ndarray]) -> float:
    """Of the ranks within each set, centred and scaled to [-1, 1] so that sets of any size count alike."""
    ranks = [2 * scipy.stats.rankdata(pairs, axis=0) / (len(pairs) + 1) - 1 for pairs in sets]
    first, second = np.concatenate(ranks).T
    return float(np.corrcoef(first, second)[0, 1])


if __name__ == "__main__":
    main()
