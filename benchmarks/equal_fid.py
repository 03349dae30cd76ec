"""Do the optimisations of training change its results? The fid after a fixed budget, with and without them.

- fast: as a trial trains where bf16 is faster: bfloat16 autocast, channels_last, fused Adam, reals and fakes
  in one forward pass of D, R1 from the logits of that pass;
- plain: float32, contiguous memory, Adam parameter by parameter, separate forward passes of D.
Both are gansweep's trainer with the first enqueued point of the default space and R1 at every 4th step. The
difference of the means should be within the spread between seeds. On a GPU, fast has CUDA graphs as well.

    python benchmarks/equal_fid.py
    python benchmarks/equal_fid.py --device cuda --data npz:digits.npz
    python benchmarks/equal_fid.py --kimg 40 --seeds 3
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.metrics import extractors, frechet
from pipeline.search.space.builtin import load_space
from pipeline.training import trainer as trainer_module
from pipeline.training.networks.blocks import Ema
from pipeline.training.process import prepare_process
from pipeline.training.sampling import image_sampler
from pipeline.training.trainer import Trainer

R1 = {"penalty": "r1", "penalty_interval": 4, "loss": "nonsaturating"}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--kimg", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data", default="mnist5k")
    args = parser.parse_args()
    prepare_process(1)
    dataset = load_dataset(args.data)
    evaluator = frechet.build_evaluator(dataset, extractors.build_extractor("auto", dataset), 2000).to(
        args.device
    )
    measure = f"{evaluator.extractor_name} {evaluator.hash}, N=2000"
    print(f"{args.data}, {args.kimg} kimg, {args.device}; fid: {measure}")
    print(f"{'seed':<8}{'fast':>9}{'plain':>9}{'fast, img/s':>14}{'plain, img/s':>14}", flush=True)
    found: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(args.seeds):
        speeds = {}
        for fast in (True, False):
            value, speeds[fast] = train(dataset, evaluator, args.kimg, seed, fast, torch.device(args.device))
            found[fast].append(value)
        cells = f"{found[True][-1]:9.2f}{found[False][-1]:9.2f}{speeds[True]:14.0f}{speeds[False]:14.0f}"
        print(f"{seed:<8}{cells}", flush=True)
    means = {fast: statistics.mean(values) for fast, values in found.items()}
    print(f"{'mean':<8}{means[True]:9.2f}{means[False]:9.2f}")
    if args.seeds > 1:
        spread = {fast: statistics.stdev(values) for fast, values in found.items()}
        print(f"{'spread':<8}{spread[True]:9.2f}{spread[False]:9.2f}   (standard deviation over seeds)")


def train(
    dataset: Dataset, evaluator: frechet.Evaluator, kimg: int, seed: int, fast: bool, device: torch.device
) -> tuple[float, float]:
    """The fid of one run, NaN if it has none, and real images per second (of CPU time on a CPU)."""
    space = load_space("mnist5k")
    values = {**space.fixed, **space.enqueue[0], **R1, "kimg": kimg, "seed": seed}
    config = TrialConfig.from_dict({**values, "precision": "bfloat16" if fast else "float32"})
    labels = torch.from_numpy(dataset.train_labels).to(device) if config.conditional else None
    images = torch.from_numpy(dataset.train).to(device)
    options = {} if fast else {"backend_factory": lambda device, generator: None}
    trainer = Trainer(config, images, labels, len(dataset.classes), device, **options)
    penalty_inputs = trainer_module.penalty_inputs
    if not fast:
        remove_optimisations(trainer)
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    began = clock()
    trainer.advance(kimg)
    trainer.metrics.read()  # waits for the device
    seconds = clock() - began
    trainer_module.penalty_inputs = penalty_inputs
    score = evaluator.score(image_sampler(trainer.ema.generator, dataset))
    return float("nan") if score is None else score, trainer.nimg / seconds


def remove_optimisations(trainer: Trainer) -> None:
    """Undo the optimisations of a new trainer."""
    config = trainer.config
    trainer.G.to(memory_format=torch.contiguous_format)
    trainer.D.to(memory_format=torch.contiguous_format)
    trainer.ema = Ema(trainer.G, config.ema_halflife_kimg)
    options = {"betas": (config.beta1, config.beta2), "fused": False, "foreach": False}
    trainer.opt_g = torch.optim.Adam(trainer.G.parameters(), lr=config.lr_g, **options)
    trainer.opt_d = torch.optim.Adam(trainer.D.parameters(), lr=config.lr_d, **options)
    trainer._concat_real_fake = False
    trainer_module.penalty_inputs = lambda name: (False, False)  # penalties by their own passes of D


if __name__ == "__main__":
    main()
