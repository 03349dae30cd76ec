"""Which metric ranks short runs best: what a rung of the search should look at.

    nice python benchmarks/rungs.py [--configs 8] [--kimg 30]

Configurations are drawn from the default space (narrow networks) and trained on 5,000 digits, one thread,
without pruning. At every tick each metric evaluates the EMA generator; at the end an independent evaluator,
a classifier trained from another seed, measures 10,000 fresh samples. The table holds Spearman's rank
correlation of a metric at a tick with that final distance, and the seconds of one measurement.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
import scipy.stats
import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.metrics import classifier, extractors, frechet
from pipeline.metrics.frechet import Evaluator
from pipeline.search.space.builtin import load_space
from pipeline.search.study import suggest_params
from pipeline.tables import EXTRACTORS
from pipeline.training.process import prepare_process
from pipeline.training.sampling import image_sampler
from pipeline.training.trainer import Trainer

Metric = Callable[[torch.Tensor], float]
FINAL = 10_000


def metrics(dataset: Dataset) -> dict[str, tuple[int, Metric]]:
    """Name -> (number of samples, the metric of them)."""
    by_net, by_pixels = (extractors.build_extractor(name, dataset) for name in ("classifier", "pixels"))
    real = frechet.build_evaluator(dataset, by_net, FINAL).real
    real_pixels = frechet.build_evaluator(dataset, by_pixels, FINAL).real
    train = by_net(torch.from_numpy(dataset.train))
    return {
        "fid, N=2000": (2000, lambda x: frechet.frechet_of(real, by_net(x))),
        "fid, N=500": (500, lambda x: frechet.frechet_of(real, by_net(x))),
        "fid, N=200": (200, lambda x: frechet.frechet_of(real, by_net(x))),
        "kid, N=2000": (2000, lambda x: frechet.kid(train, by_net(x)).value),
        "kid, N=500": (500, lambda x: frechet.kid(train, by_net(x)).value),
        "kid, N=200": (200, lambda x: frechet.kid(train, by_net(x)).value),
        "pixel fid, N=2000": (2000, lambda x: frechet.frechet_of(real_pixels, by_pixels(x))),
        "pixel fid, N=500": (500, lambda x: frechet.frechet_of(real_pixels, by_pixels(x))),
    }


def independent_evaluator(dataset: Dataset) -> Evaluator:
    """The evaluator of the final distance: same data, another classifier."""
    net = classifier.train_classifier(dataset, seed=1).to(memory_format=torch.channels_last)
    row = dataclasses.replace(EXTRACTORS["classifier"], version="independent")
    other = extractors.NetExtractor("classifier", net, classifier.DIM, row)
    return frechet.build_evaluator(dataset, other, FINAL)


def configurations(count: int, kimg: int, seed: int) -> list[TrialConfig]:
    """The default space's first enqueued point, then random draws; narrow enough to train in seconds."""
    space = load_space("mnist5k")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    drawn: list[dict[str, Any]] = [dict(space.enqueue[0])]
    drawn += [suggest_params(space, study.ask()) for _ in range(count - 1)]
    fixed = {**space.fixed, "width_g": 8, "width_d": 16, "kimg": kimg}
    return [TrialConfig.from_dict({**d, **fixed, "seed": i}) for i, d in enumerate(drawn)]


def train(
    config: TrialConfig, dataset: Dataset, measures: dict[str, tuple[int, Metric]], ticks: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, Trainer]:
    """Every metric at every tick (shape: metrics, ticks), the seconds of each metric, and the trainer."""
    labels = torch.from_numpy(dataset.train_labels)
    trainer = Trainer(config, torch.from_numpy(dataset.train), labels, len(dataset.classes))
    values, seconds = np.zeros((len(measures), len(ticks))), np.zeros(len(measures))
    for column, kimg in enumerate(ticks):
        trainer.advance(kimg)
        for row, (n, metric) in enumerate(measures.values()):
            started = time.process_time()
            images = image_sampler(trainer.ema.generator, dataset)(n)
            values[row, column] = metric(images)
            seconds[row] += (time.process_time() - started) / len(ticks)
    return values, seconds, trainer


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties by their mean rank; a value that is not finite ranks last."""
    return float(scipy.stats.spearmanr(*(np.nan_to_num(side, nan=1e300) for side in (a, b)))[0])


def standard_error(a: np.ndarray, b: np.ndarray, draws: int = 500) -> float:
    """Standard error of the correlation, by resampling configurations."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(a), (draws, len(a)))
    return float(np.std([spearman(a[p], b[p]) for p in picks if len(set(p)) > 3]))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--configs", type=int, default=8)
    parser.add_argument("--kimg", type=int, default=30)
    parser.add_argument("--seed", type=int, default=5, help="seed of the draws")
    arguments = parser.parse_args()
    prepare_process(1)
    dataset = load_dataset("mnist5k")
    measures, evaluator = metrics(dataset), independent_evaluator(dataset)
    ticks = sorted({2, 5, 10, arguments.kimg // 2, arguments.kimg})
    values, distances, costs = [], [], []
    for config in configurations(arguments.configs, arguments.kimg, arguments.seed):
        table, seconds, trainer = train(config, dataset, measures, ticks)
        final = dataclasses.replace(evaluator, samples=FINAL).score(
            image_sampler(trainer.ema.generator, dataset, seed=99)
        )
        distances.append(float("inf") if final is None else final)
        values.append(table)
        costs.append(seconds)
        print(f"configuration {len(distances)}: final distance {distances[-1]:.2f}", flush=True)
    cube, truth = np.stack(values), np.array(distances)
    print(f"\nSpearman with the final distance at {arguments.kimg} kimg, {len(distances)} configurations")
    print(f"{'metric':<20}" + "".join(f"{kimg:>12} kimg" for kimg in ticks) + "   seconds each")
    for row, name in enumerate(measures):
        pairs = [(cube[:, row, column], truth) for column in range(len(ticks))]
        rhos = "".join(
            f"{spearman(*pair):10.2f} +- {standard_error(*pair):.2f}"[-17:].rjust(17) for pair in pairs
        )
        print(f"{name:<20}{rhos}   {np.mean(costs, axis=0)[row]:.2f}")


if __name__ == "__main__":
    main()
