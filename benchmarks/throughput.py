"""Training speed on one CPU thread or on a GPU: Ray's GAN example, a plain loop, and gansweep.

All with the same networks, those of `ray.tune.examples.pbt_dcgan_mnist` (32 px, width 32, batch norm in
both), and batch 64.
- theirs: its `train_func`, unmodified, on batches that lie ready in memory (its data loader's time is not
  counted) and with its Inception Score of every batch left out;
- plain: the same steps as one writes them by hand: float32, Adam as it comes, no number read in the loop;
- ours: `pipeline.trainer.Trainer`, to which the networks come as anybody's do, by `module:function`.
The rest are ours with one thing changed. Each has a process of its own, in which ours is set up as a trial's
is; they take turns for a few seconds each, round after round, since the machine may be shared; medians are
printed, in real images per second, with ratios. On a machine that is busy with other things, `--clock cpu`
divides by the seconds that the thread ran instead of those that passed.

On a GPU (`--device cuda`) theirs is written out again (`example_gan.py`, which compares the two), so that it
needs no Ray; the images are noise, which takes as long as digits do; 64 px has one layer more. The last
column is the share of the kernel floor: of the speed that the device would have if its kernels, as the
profiler sees them, came without a gap.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --only theirs plain ours --rounds 9 --seconds 4
    python benchmarks/throughput.py --device cuda --size 64 --seconds 2 --json out.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import example_gan
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline import data
from pipeline import networks as networks_of_ours
from pipeline.config import TrialConfig
from pipeline.graphs import SWITCH
from pipeline.networks import ImageShape, use_code
from pipeline.process import prepare_process
from pipeline.trainer import Trainer

BATCH, NOISE, RATE = 64, example_gan.NOISE, 2e-4
BF16 = "bfloat16"
PLAIN_CONVS = "ours, torch's convolutions"
_PROFILED = 200  # steps of which the kernels are counted

OURS: dict[str, dict[str, Any]] = {
    "ours": {"precision": BF16},
    "ours, float32": {},
    PLAIN_CONVS: {"precision": BF16},
    "ours, without EMA": {"precision": BF16, "ema_halflife_kimg": 0.0},
    "ours, batch 256": {"precision": BF16, "batch_size": 256},
    "ours, float32, batch 256": {"batch_size": 256},
    "ours, R1 every 16th step": {"precision": BF16, "penalty": "r1", "penalty_interval": 16},
}
EAGER = "ours, no graphs"
OURS_ON_GPU = {name: OURS[name] for name in OURS if name != PLAIN_CONVS} | {EAGER: {"precision": BF16}}
ALL_OURS = OURS | OURS_ON_GPU

Side = Iterator[int]
"""Trains as it is advanced; yields how many real images D has seen since the last time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", type=int, choices=(32, 64), default=32, help="of the images; 64 on a GPU")
    parser.add_argument("--only", nargs="+", choices=("theirs", "plain", *ALL_OURS), help="some of the rows")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    if args.size != 32 and args.device == "cpu":
        parser.error("the example's own networks are of 32 px")
    rows = ("theirs", "plain", *(OURS if args.device == "cpu" else OURS_ON_GPU))
    names = [name for name in rows if not args.only or name in args.only]
    speeds: dict[str, list[float]] = {name: [] for name in names}
    floors: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        job = (args.clock, args.device, args.size)
        sides = {name: stack.enter_context(beside(name, *job)) for name in names}
        for round_ in range(args.rounds + 1):
            for name, side in sides.items():
                side.send(args.seconds if round_ else 1.0)
                speed = side.recv()
                if round_:  # the first is for warming up
                    speeds[name].append(speed)
        if args.device == "cuda":
            for name, side in sides.items():
                side.send(None)
                floors[name] = side.recv()
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print_table(medians, floors, args)
    if args.json:
        found = {"device": args.device, "size": args.size, "images_per_second": medians, "floor": floors}
        args.json.write_text(json.dumps({**found, "rounds": speeds}, indent=1))


@contextlib.contextmanager
def beside(name: str, clock: str, device: str, size: int) -> Iterator[Connection]:
    """A process that trains for as long as it is told, and answers with real images per second."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=train, args=(name, clock, device, size, its), daemon=True)
    process.start()
    its.close()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def train(name: str, clock: str, device: str, size: int, pipe: Connection) -> None:
    """The life of such a process. Told no seconds, it answers with its kernel floor instead."""
    torch.set_num_threads(1)
    on = torch.device(device)
    if name == PLAIN_CONVS:
        networks_of_ours.hasten = lambda network: None
    if name in ALL_OURS:
        os.environ[SWITCH] = str(int(name != EAGER))
        prepare_process(1)
    images = digits() if device == "cpu" else noise(size).to(on)
    if name == "plain":
        side = plain(images)
    elif name == "theirs":
        side = theirs(images) if device == "cpu" else theirs_on_gpu(images)
    else:
        side = ours(images, ALL_OURS[name])
    measure = time.perf_counter if clock == "wall" else time.thread_time
    while True:
        seconds = pipe.recv()
        pipe.send(floor(side) if seconds is None else turn(side, seconds, measure, on))


def turn(side: Side, seconds: float, clock: Callable[[], float], device: torch.device) -> float:
    """Real images per second over one turn."""
    wait(device)
    seen, start = 0, clock()
    while clock() - start < seconds:
        seen += next(side)
    wait(device)
    return seen / (clock() - start)


def wait(device: torch.device) -> None:
    """For what the device was told to do; a CPU has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def floor(side: Side) -> float:
    """Real images per second if the kernels of a while came without a gap between them; 0 = not seen."""
    torch.cuda.synchronize()
    seen = 0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seer:
        while seen < _PROFILED * BATCH:
            seen += next(side)
        torch.cuda.synchronize()
    busy = sum(event.self_device_time_total for event in seer.key_averages()) / 1e6
    return seen / busy if busy else 0.0


def print_table(speeds: dict[str, float], floors: dict[str, float], args: argparse.Namespace) -> None:
    if args.device == "cuda":
        where = f"{torch.cuda.get_device_name()}, {args.size} px"
    else:
        has = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]
        where = f"one thread, bf16 units: {', '.join(has) or 'none'}"
    print(f"{where}, torch {torch.__version__}, {args.clock} clock")
    head = f"{'of its floor':>14}" if floors else ""
    print(f"{'':<28}{'img/s':>8}{'/ theirs':>10}{'/ plain':>10}{head}")
    for name, speed in speeds.items():
        ratios = [f"{speed / speeds[peer]:10.2f}" for peer in ("theirs", "plain") if peer in speeds]
        share = f"{speed / floors[name]:14.0%}" if floors.get(name) else ""
        print(f"{name:<28}{speed:8.0f}{''.join(ratios)}{share}")


def digits() -> Tensor:
    """uint8 (N,32,32,1): mnist5k with its margin widened."""
    train = torch.from_numpy(data.load("mnist5k").train)
    return functional.pad(train, (0, 0, 2, 2, 2, 2))


def noise(size: int) -> Tensor:
    """uint8 (4500,size,size,1)."""
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4500, size, size, 1), dtype=torch.uint8, generator=rng)


# --- Ray's example -------------------------------------------------------------------------------


def theirs(images: Tensor) -> Side:
    """Its `train_func` with its networks, optimizers and batches."""
    from ray.tune.examples.pbt_dcgan_mnist import common

    common.inception_score = lambda fake, model: (0.0, 0.0)
    common.train_iterations_per_step = 4
    net_g, net_d = (common.Generator(), common.Discriminator())
    torch.manual_seed(0)
    for net in (net_g, net_d):
        net.apply(common.weights_init)
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


def theirs_on_gpu(images: Tensor) -> Side:
    """The same as `example_gan` has it."""
    device = images.device
    net_g, net_d = (net.to(device) for net in example_gan.pair(images.shape[1]))
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), lr=RATE, betas=(0.5, 0.999)) for n in (net_g, net_d))
    ready = data.to_float(images).contiguous()
    sampler, position = data.Sampler(len(images), 0), 0
    while True:
        rows = torch.from_numpy(sampler.take(position, 4 * BATCH)).to(device)
        position += 4 * BATCH
        example_gan.train(net_d, net_g, adam_g, adam_d, ready[rows].split(BATCH), device)
        yield 4 * BATCH


# --- The plain loop ------------------------------------------------------------------------------


def plain(images: Tensor) -> Side:
    """The loop of every tutorial; the sigmoid lies in the loss."""
    device = images.device
    net_g, net_d = (net.to(device) for net in networks(TrialConfig(), ImageShape(images.shape[1], 1)))
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), lr=RATE, betas=(0.5, 0.999)) for n in (net_g, net_d))
    ready = data.to_float(images).contiguous()
    ones, zeros = torch.ones(BATCH, device=device), torch.zeros(BATCH, device=device)
    bce = functional.binary_cross_entropy_with_logits
    sampler, position = data.Sampler(len(images), 0), 0
    while True:
        real = ready[torch.from_numpy(sampler.take(position, BATCH)).to(device)]
        adam_d.zero_grad()
        fake = net_g(torch.randn(BATCH, NOISE, device=device))
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
    net_g, net_d = example_gan.pair(shape.size)
    generator = nn.Sequential(nn.Unflatten(1, (NOISE, 1, 1)), *net_g)
    return generator, nn.Sequential(*list(net_d)[:-1], nn.Flatten(0))


if __name__ == "__main__":
    main()
