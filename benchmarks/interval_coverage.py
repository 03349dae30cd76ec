"""Does the interval of a fid cover other measurements of the same generator?

    nice python benchmarks/interval_coverage.py runs/mnist5k          # a sweep's champion, or any MODEL
    nice python benchmarks/interval_coverage.py --kimg 20             # a generator trained for it

The measurement is the final one of a sweep: the mean of four batches of N, and an interval. Then 20 other
seeds, N fresh samples each; at least 17 of their fids must lie in the interval. Repeated for several first
seeds, because one interval covers many or few by luck.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.metrics import extractors, frechet
from pipeline.metrics.evaluation import from_arrays, measure_generator
from pipeline.metrics.generator_metrics import Sample
from pipeline.search.space.builtin import load_space
from pipeline.serving import models
from pipeline.training.process import prepare_process
from pipeline.training.sampling import labelled_image_sampler
from pipeline.training.trainer import Trainer


def trained(kimg: int, dataset: Dataset) -> Sample:
    """Samples of the default space's first point, trained for `kimg`."""
    space = load_space("mnist5k")
    config = TrialConfig.from_dict({**space.fixed, **space.enqueue[0], "width_d": 16, "kimg": kimg})
    labels = torch.from_numpy(dataset.train_labels)
    trainer = Trainer(config, torch.from_numpy(dataset.train), labels, len(dataset.classes))
    trainer.advance(kimg)
    return labelled_image_sampler(trainer.ema.generator, dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("model", nargs="?", default="")
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--kimg", type=int, default=20)
    parser.add_argument("-n", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--intervals", type=int, default=3)
    parser.add_argument("--tracking-uri", default="")
    arguments = parser.parse_args()
    prepare_process(1)
    dataset = load_dataset(arguments.data)
    evaluator = frechet.build_evaluator(dataset, extractors.build_extractor("auto", dataset), arguments.n)
    if arguments.model:
        generator = models.load_generator(arguments.model, tracking_uri=arguments.tracking_uri)
        sample = from_arrays(generator.sample)
    else:
        sample = trained(arguments.kimg, dataset)
    others = np.array(
        [
            frechet.frechet_of(evaluator.real, evaluator.extractor(sample(arguments.n, 1000 + s)[0]))
            for s in range(arguments.seeds)
        ]
    )
    print(
        f"{arguments.model or 'trained'}: {arguments.seeds} fids of {arguments.n} samples: "
        f"mean {others.mean():.3f}, standard deviation {others.std(ddof=1):.3f}, "
        f"from {others.min():.3f} to {others.max():.3f}",
        flush=True,
    )
    for seed in range(arguments.intervals):
        found = measure_generator(sample, dataset, evaluator, n=arguments.n, seed=seed)
        inside = int(((found.fid_low <= others) & (others <= found.fid_high)).sum())
        print(
            f"measured with seed {seed}: {found.fid:.3f} in [{found.fid_low:.3f}, {found.fid_high:.3f}], "
            f"covers {inside} of {arguments.seeds}",
            flush=True,
        )


if __name__ == "__main__":
    main()
