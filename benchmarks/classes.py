"""Whether a conditional champion draws its classes: distances of drawn classes to the classes of the reals.

Samples of each class are compared with the training images of every class, by an extractor that took no part
in the search. A class is drawn recognisably where the nearest class of the reals is its own.

    gansweep run --time-budget 10m
    python benchmarks/classes.py runs/mnist5k --extractor efficientnet
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from pipeline.config import SweepPaths
from pipeline.data.dataset import Dataset
from pipeline.metrics import frechet
from pipeline.metrics.extractors import Extractor, build_extractor
from pipeline.metrics.loading import read_images
from pipeline.metrics.statistics import BATCH, FeatureStatistics
from pipeline.serving.models import load_generator
from pipeline.sweep.manifest import read_existing

SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("sweep", type=Path, help="folder of a finished sweep with a conditional champion")
    parser.add_argument("--extractor", default="efficientnet", help="one that the search did not use")
    parser.add_argument("--samples", type=int, default=500, help="of each class")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    args = parser.parse_args()
    dataset = read_images(read_existing(str(args.sweep), SweepPaths(args.sweep)).config)
    matrix = class_distances(args.sweep, dataset, build_extractor(args.extractor, dataset), args.samples)
    if args.json:
        print(json.dumps({"extractor": args.extractor, "distances": matrix.tolist()}))
    else:
        print_table(matrix, dataset.classes)


def class_distances(sweep: Path, dataset: Dataset, extractor: Extractor, samples: int) -> np.ndarray:
    """Frechet distances float (K,K) of the samples of a class (row) to the reals of a class (column)."""
    generator, labels = load_generator(str(sweep)), torch.from_numpy(dataset.train_labels)
    train = torch.from_numpy(dataset.train)
    reals = [features_of(extractor, train[labels == label]) for label in range(len(dataset.classes))]
    factors = [frechet.RealFactor.of(FeatureStatistics.of(features)) for features in reals]
    drawn = (
        torch.from_numpy(generator.sample(samples, SEED, label=label)[0]) for label in range(len(factors))
    )
    fakes = [features_of(extractor, images) for images in drawn]
    return np.array([[frechet.frechet_of(factor, fake) for factor in factors] for fake in fakes])


def features_of(extractor: Extractor, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([extractor(block) for block in torch.split(images, BATCH)])


def print_table(matrix: np.ndarray, names: tuple[str, ...]) -> None:
    """A line for each class: the distance to its own reals, and to the nearest other class."""
    print(f"{'drawn class':<20}{'its own reals':>16}{'nearest other':>16}  ratio")
    right = 0
    for label, row in enumerate(matrix):
        other = int(np.argmin(np.where(np.arange(len(row)) == label, np.inf, row)))
        right += bool(row[label] < row[other])
        nearest = f"{row[other]:.4g} ({names[other]})"
        print(f"{names[label]:<20}{row[label]:>16.4g}{nearest:>16}  {row[label] / row[other]:.2f}")
    print(f"{right} of {len(names)} drawn classes are nearest to their own reals")


if __name__ == "__main__":
    main()
