"""Compares Ray's example of a GAN search with gansweep, for the same wall-clock on the same cores and images.

The peer is `ray.tune.examples.pbt_dcgan_mnist`: its class `PytorchTrainable` unmodified, 8 trials,
population based training and search space as in its main. Both sides see the same 5,000 MNIST digits;
both are scored by gansweep's evaluator at the same number of samples, and each side enters its best.

What had to be provided from outside, none of it to the peer's disadvantage:

- Its Inception Score needs a LeNet, `mnist_cnn.pt`, that its main downloads and the package does not
  ship. Its class `Net` is trained here on the same digits and images as its loader gives, for a few
  seconds that are not counted, nor is Ray's start.
- Its data loader wants MNIST's four files; they are written from the 5,000 digits into a temporary folder
  (training and test part alike), where it finds them and downloads nothing. It trains on all 5,000; gansweep
  trains on its training split and holds the rest out for measuring.
- Its main stops a trial after 300 iterations; here nothing stops it before the time is up. Then each trial
  ends with its next iteration, which saves its last generator; this extra time counts for the peer.
- Its generator ends in tanh, but its loader scales white to 2.89: no one reading of its 32x32 images as
  8-bit digits of 28x28 is right. Three brightness scales, two ways to get to 28, and batch norm by batch
  (as its demo draws) or by running averages are all scored; the lowest fid counts, for each trial.

Limits of the ratio: gansweep searches by this very fid, the peer by its Inception Score; and for a given
--champion the time of its search is not checked.

Run it from the repository's root, on an otherwise idle machine:

    python benchmarks/peer_ray_dcgan.py                       # 10 minutes each, 2 cores
    python benchmarks/peer_ray_dcgan.py --peer-fid 123.4      # only ours; the peer's from an earlier run
    python benchmarks/peer_ray_dcgan.py --champion models:/mnist5k@champion
"""

from __future__ import annotations

import argparse
import itertools
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.data.dataset import Dataset, load_dataset
from pipeline.metrics import extractors
from pipeline.metrics.frechet import Evaluator, build_evaluator
from pipeline.metrics.statistics import BATCH

MEAN, STD = 0.13066, 0.30131  # of the peer's loader
TRIALS = 8
NOISE = 100
SIDE = 28

Decode = Callable[[Tensor], Tensor]
Row = tuple[str, float, str]  # who, fid, how


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="wall-clock of each side's search")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--samples", type=int, default=5000, help="generated images per fid")
    parser.add_argument("--extractor", default="classifier", choices=("classifier", "pixels"))
    parser.add_argument("--peer-fid", type=float, help="the peer's fid of an earlier run")
    parser.add_argument("--skip-peer", action="store_true", help="run and score our side only")
    parser.add_argument("--skip-ours", action="store_true", help="run and score the peer only")
    parser.add_argument("--champion", help="a sweep's folder or models:/..., instead of running a sweep")
    return parser.parse_args()


def main() -> None:
    args = options()
    dataset = load_dataset("mnist5k")
    extractor = extractors.build_extractor(args.extractor, dataset)
    evaluator = build_evaluator(dataset, extractor, args.samples)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="gansweep-peer-") as folder:
        if args.peer_fid is not None:
            rows.append(("Ray pbt_dcgan_mnist", args.peer_fid, "given"))
        elif not args.skip_peer:
            rows.append(("Ray pbt_dcgan_mnist", *run_peer(Path(folder), args, dataset, evaluator)))
        if not args.skip_ours:
            rows.append(("gansweep", *run_ours(Path(folder), args, evaluator)))
    print_table(rows, evaluator, args)


def print_table(rows: list[Row], evaluator: Evaluator, args: argparse.Namespace) -> None:
    measured = f"{evaluator.extractor_name} {evaluator.hash}, N={args.samples}"
    print(f"\nfid: {measured}; {args.seconds:g} s on {args.cores} cores")
    for name, value, note in rows:
        print(f"  {name:22}{value:10.2f}   {note}")
    if len(rows) == 2:
        print(f"  ratio, peer / ours    {rows[0][1] / rows[1][1]:10.2f}")


# --- The peer ------------------------------------------------------------------------------------


def run_peer(
    folder: Path, args: argparse.Namespace, dataset: Dataset, evaluator: Evaluator
) -> tuple[float, str]:
    """Search with the peer, score every trial's last generator: the best fid, and what it was."""
    write_idx(folder / "data" / "MNIST" / "raw", dataset)
    lock = Path("~/.data.lock").expanduser()  # its class leaves this in the home folder
    was_there = lock.exists()
    checkpoints, iterations, took = search_peer(folder, args)
    if not was_there:
        lock.unlink(missing_ok=True)
    # Picks the best reading on fewer samples, then measures that one on all.
    quick = build_evaluator(dataset, evaluator.extractor, min(1000, args.samples))
    scores = []
    for number, path in enumerate(checkpoints):
        value, reading = score_peer(path, quick, evaluator)
        scores.append((value, reading))
        print(f"peer trial {number}: fid {value:.2f} read as {reading}", flush=True)
    if not scores:
        raise SystemExit("the peer left no checkpoint: give it more --seconds")
    value, reading = min(scores)
    kimg = sum(iterations) * 5 * 64 / 1000
    return value, f"best of {len(scores)} read as {reading}; {kimg:.0f} kimg in all, {took:.0f} s"


def write_idx(folder: Path, dataset: Dataset) -> None:
    """Write the digits as MNIST's four IDX files, the training and the test part alike."""
    folder.mkdir(parents=True)
    images = np.concatenate([dataset.train, dataset.held])[..., 0]
    assert dataset.train_labels is not None
    assert dataset.held_labels is not None
    labels = np.concatenate([dataset.train_labels, dataset.held_labels]).astype(np.uint8)
    for part in ("train", "t10k"):
        head = struct.pack(">4i", 0x803, *images.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = struct.pack(">2i", 0x801, len(labels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


def search_peer(folder: Path, args: argparse.Namespace) -> tuple[list[Path], list[int], float]:
    """Its main, from `ray.put` to `fit`, with a time limit: last checkpoints, iterations, seconds of fit."""
    import ray
    from ray import tune
    from ray.tune.examples.pbt_dcgan_mnist.pbt_dcgan_mnist_trainable import PytorchTrainable
    from ray.tune.schedulers import PopulationBasedTraining

    ray.init(address="local", num_cpus=args.cores, include_dashboard=False, log_to_driver=False)
    lenet = train_lenet(folder / "data")
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=5,
        hyperparam_mutations={
            "netG_lr": lambda: np.random.uniform(1e-2, 1e-5),
            "netD_lr": lambda: np.random.uniform(1e-2, 1e-5),
        },
    )
    start = time.monotonic()
    tuner = tune.Tuner(
        PytorchTrainable,
        run_config=tune.RunConfig(
            name="pbt_dcgan_mnist",
            storage_path=str(folder / "results"),
            verbose=1,
            stop=lambda trial_id, result: time.monotonic() - start > args.seconds,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        ),
        tune_config=tune.TuneConfig(
            metric="is_score",
            mode="max",
            num_samples=TRIALS,
            scheduler=scheduler,
            reuse_actors=True,
        ),
        param_space={
            "netG_lr": tune.sample_from(lambda spec: random.choice([0.0001, 0.0002, 0.0005])),
            "netD_lr": tune.sample_from(lambda spec: random.choice([0.0001, 0.0002, 0.0005])),
            "mnist_model_ref": ray.put(lenet),
            "data_dir": str(folder / "data"),
        },
    )
    results = tuner.fit()
    took = time.monotonic() - start
    ray.shutdown()
    kept = [result for result in results if result.checkpoint is not None]
    iterations = [int((result.metrics or {}).get("training_iteration", 0)) for result in results]
    return [Path(result.checkpoint.path) / "checkpoint.pt" for result in kept], iterations, took


def train_lenet(folder: Path, epochs: int = 6) -> nn.Module:
    """The peer's `Net`, trained on its loader's images as its Inception Score feeds them to it."""
    from ray.tune.examples.pbt_dcgan_mnist.common import Net, get_data_loader

    torch.manual_seed(0)
    net: nn.Module = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(epochs):
        for images, labels in get_data_loader(str(folder)):
            small = functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear")
            optimizer.zero_grad()
            functional.nll_loss(net(small), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net.eval()


def score_peer(path: Path, quick: Evaluator, full: Evaluator) -> tuple[float, str]:
    """The lowest fid over all readings of one generator's output, and that reading's name."""
    from ray.tune.examples.pbt_dcgan_mnist.common import Generator

    net: nn.Module = Generator()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["netGmodel"])
    readings = {
        f"{mode}, {scale}, {fit}": (mode == "batch statistics", scales()[scale], fits()[fit])
        for mode, scale, fit in itertools.product(("batch statistics", "running averages"), scales(), fits())
    }
    quick_scores = {name: score(net, reading, quick) for name, reading in readings.items()}
    best = min(quick_scores, key=quick_scores.__getitem__)
    return score(net, readings[best], full), best


def scales() -> dict[str, Decode]:
    """From its generator's range to brightness in 0..1 (before clipping), by name."""
    black = (0 - MEAN) / STD
    return {
        "undoing its scaling": lambda x: x * STD + MEAN,
        "tanh as usual": lambda x: (x + 1) / 2,
        "its black to black, 1 to white": lambda x: (x - black) / (1 - black),
    }


def fits() -> dict[str, Decode]:
    """From 32x32 to 28x28, by name. Its loader came from 28 by bilinear resizing."""
    return {
        "resized": lambda x: functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", antialias=True),
        "cropped": lambda x: x[:, :, 2:-2, 2:-2],
    }


def score(net: nn.Module, reading: tuple[bool, Decode, Decode], evaluator: Evaluator) -> float:
    by_batch, scale, fit = reading
    net.train(by_batch)
    rng = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def sample(count: int) -> Tensor:
        images = fit(scale(net(torch.randn(count, NOISE, 1, 1, generator=rng))))
        return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    value = evaluator.score(sample)
    return float("inf") if value is None else value


# --- Ours ----------------------------------------------------------------------------------------


def run_ours(folder: Path, args: argparse.Namespace, evaluator: Evaluator) -> tuple[float, str]:
    """gansweep's default sweep for the same time (or a given champion), scored alike."""
    champion, note = args.champion, "given"
    if champion is None:
        start = time.monotonic()
        gansweep("run", "--data", "mnist5k", "--name", "ours", "--out", str(folder / "ours"),
                 "--time-budget", f"{args.seconds:g}s", "--concurrency", str(args.cores),
                 "--second-extractor", "none")  # fmt: skip
        champion = str(folder / "ours" / "ours")
        note = f"{time.monotonic() - start:.0f} s with start, finalists and registering"
    file = folder / "samples.npz"
    gansweep("sample", champion, "-n", str(args.samples), "--seed", "0", "--out", str(file))
    with np.load(file, allow_pickle=False) as stored:
        images = torch.from_numpy(stored["images"])
    parts = iter(torch.split(images, BATCH))
    value = evaluator.score(lambda count: next(parts)[:count])
    return float("inf") if value is None else value, note


def gansweep(*arguments: Any) -> None:
    subprocess.run([sys.executable, "-m", "pipeline", *arguments], check=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
