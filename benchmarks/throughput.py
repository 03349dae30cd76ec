"""Training speed on one CPU thread: Ray's GAN example, a plain loop, and gansweep, with the same networks.

The networks are those of `ray.tune.examples.pbt_dcgan_mnist` (32 px, width 32, batch norm in both), batch 64.
- theirs: its `train_func`, unmodified, on batches that lie ready in memory (its data loader's time is not
  counted) and with its Inception Score of every batch left out;
- plain: the same steps as one writes them by hand: float32, Adam as it comes, no number read in the loop;
- ours: `pipeline.trainer.Trainer`, to which the networks come as anybody's do, by `module:function`.
The rest are ours with one thing changed. Each has a process of its own, in which ours is set up as a trial's
is; they take turns for a few seconds each, round after round, since the machine may be shared; medians are
printed, in real images per second, with ratios. On a machine that is busy with other things, `--clock cpu`
divides by the seconds that the thread ran instead of those that passed.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --only theirs plain ours --rounds 9 --seconds 4
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline import data
from pipeline.config import TrialConfig
from pipeline.networks import ImageShape, use_code
from pipeline.process import prepare_process
from pipeline.trainer import Trainer

SIZE, BATCH, NOISE, RATE = 32, 64, 100, 2e-4
BF16 = "bfloat16"

OURS: dict[str, dict[str, Any]] = {
    "ours": {"precision": BF16},
    "ours, float32": {},
    "ours, without EMA": {"precision": BF16, "ema_halflife_kimg": 0.0},
    "ours, batch 256": {"precision": BF16, "batch_size": 256},
    "ours, float32, batch 256": {"batch_size": 256},
    "ours, R1 every 16th step": {"precision": BF16, "penalty": "r1", "penalty_interval": 16},
}

Side = Iterator[int]
"""Trains as it is advanced; yields how many real images D has seen since the last time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--only", nargs="+", choices=("theirs", "plain", *OURS), help="some of the rows")
    args = parser.parse_args()
    names = [name for name in ("theirs", "plain", *OURS) if not args.only or name in args.only]
    speeds: dict[str, list[float]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        sides = {name: stack.enter_context(beside(name, args.clock)) for name in names}
        for round_ in range(args.rounds + 1):
            for name, side in sides.items():
                side.send(args.seconds if round_ else 1.0)
                speed = side.recv()
                if round_:  # the first is for warming up
                    speeds[name].append(speed)
    print_table({name: statistics.median(values) for name, values in speeds.items()}, args.clock)


@contextlib.contextmanager
def beside(name: str, clock: str) -> Iterator[Connection]:
    """A process that trains for as long as it is told, and answers with real images per second."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=train, args=(name, clock, its), daemon=True)
    process.start()
    its.close()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def train(name: str, clock: str, pipe: Connection) -> None:
    """The life of such a process."""
    torch.set_num_threads(1)
    if name in OURS:
        prepare_process(1)
    images = digits()
    side = {"theirs": theirs, "plain": plain}[name](images) if name not in OURS else ours(images, OURS[name])
    while True:
        pipe.send(turn(side, pipe.recv(), time.perf_counter if clock == "wall" else time.thread_time))


def turn(side: Side, seconds: float, clock: Callable[[], float]) -> float:
    """Real images per second over one turn."""
    seen, start = 0, clock()
    while clock() - start < seconds:
        seen += next(side)
    return seen / (clock() - start)


def print_table(speeds: dict[str, float], clock: str) -> None:
    has = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]
    print(f"one thread, torch {torch.__version__}, bf16 units: {', '.join(has) or 'none'}, {clock} clock")
    print(f"{'':<28}{'img/s':>8}{'/ theirs':>10}{'/ plain':>10}")
    for name, speed in speeds.items():
        ratios = [f"{speed / speeds[peer]:10.2f}" for peer in ("theirs", "plain") if peer in speeds]
        print(f"{name:<28}{speed:8.0f}{''.join(ratios)}")


def digits() -> Tensor:
    """uint8 (N,32,32,1): mnist5k with its margin widened."""
    train = torch.from_numpy(data.load("mnist5k").train)
    return functional.pad(train, (0, 0, 2, 2, 2, 2))


# --- Ray's example -------------------------------------------------------------------------------


def theirs(images: Tensor) -> Side:
    """Its `train_func` with its networks, optimizers and batches."""
    from ray.tune.examples.pbt_dcgan_mnist import common

    common.inception_score = lambda fake, model: (0.0, 0.0)
    common.train_iterations_per_step = 4
    net_g, net_d = pair()
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), lr=RATE, betas=(0.5, 0.999)) for n in (net_g, net_d))
    ready = data.to_float(images).contiguous()  # NCHW memory, as its loader gives
    sampler, position = data.Sampler(len(images), 0), 0
    while True:
        batches = []
        for _ in range(common.train_iterations_per_step):
            batches.append((ready[torch.from_numpy(sampler.take(position, BATCH))],))
            position += BATCH
        common.train_func(net_d, net_g, adam_g, adam_d, nn.BCELoss(), batches, 1, torch.device("cpu"), None)
        yield BATCH * len(batches)


def pair() -> tuple[nn.Module, nn.Module]:
    """Its G and D, freshly drawn as it does."""
    from ray.tune.examples.pbt_dcgan_mnist import common

    torch.manual_seed(0)
    made = common.Generator(), common.Discriminator()
    for net in made:
        net.apply(common.weights_init)
    return made


# --- The plain loop ------------------------------------------------------------------------------


def plain(images: Tensor) -> Side:
    """The loop of every tutorial; the sigmoid lies in the loss."""
    net_g, net_d = networks(TrialConfig(), ImageShape(SIZE, 1))
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), lr=RATE, betas=(0.5, 0.999)) for n in (net_g, net_d))
    ready = data.to_float(images).contiguous()
    ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)
    bce = functional.binary_cross_entropy_with_logits
    sampler, position = data.Sampler(len(images), 0), 0
    while True:
        real = ready[torch.from_numpy(sampler.take(position, BATCH))]
        adam_d.zero_grad()
        fake = net_g(torch.randn(BATCH, NOISE))
        torch.autograd.backward(bce(net_d(real), ones) + bce(net_d(fake.detach()), zeros))
        adam_d.step()
        adam_g.zero_grad()
        torch.autograd.backward(bce(net_d(fake), ones))
        adam_g.step()
        position += BATCH
        yield BATCH


# --- Ours ----------------------------------------------------------------------------------------


def ours(images: Tensor, changes: dict[str, Any]) -> Side:
    """gansweep's trainer, a kimg at a time."""
    use_code(Path(__file__).resolve().parent)
    basic = {"architecture": "throughput:networks", "z_dim": NOISE, "norm_d": "batch", "batch_size": BATCH}
    config = TrialConfig.from_dict({**basic, "lr_g": RATE, "lr_d": RATE, "kimg": 10**6, **changes})
    trainer = Trainer(config, images, None, 0)
    while True:
        before = trainer.nimg
        trainer.advance(before // 1000 + 1)
        yield trainer.nimg - before


def networks(config: TrialConfig, shape: ImageShape) -> tuple[nn.Module, nn.Module]:
    """The example's G and D as gansweep takes them: z without its pixels, logits without their sigmoid."""
    net_g, net_d = pair()
    generator = nn.Sequential(nn.Unflatten(1, (NOISE, 1, 1)), *net_g.main)
    return generator, nn.Sequential(*list(net_d.main)[:-1], nn.Flatten(0))


if __name__ == "__main__":
    main()
