"""Training speed on one CPU thread or on a GPU: Ray's GAN example, a plain loop, and gansweep.

All have the same networks, those of `ray.tune.examples.pbt_dcgan_mnist` (32 px, width 32, batch norm in
both), and batch size 64.
- theirs: its `train_func`, unmodified, on batches in memory (without the time of its data loader) and without
  its Inception Score of every batch;
- plain: the same steps written by hand: float32, Adam with its defaults, no number read in the loop;
- ours: `pipeline.training.trainer.Trainer`, with the networks as custom ones, by `module:function`.
The other rows are ours with one change. Each runs in its own process, which ours prepares as for a trial.
They take turns of a few seconds, in several rounds, since the machine may be shared. Printed are the medians
in real images per second, and ratios. On a busy machine, `--clock cpu` divides by the CPU time of the thread
instead of the wall time.

On a GPU (`--device cuda`) theirs is the reimplementation in `example_gan.py`, which needs no Ray; the images
are noise; at 64 px the networks have one more layer. Four rows are also profiled: kernels per step, their
microseconds, Python's microseconds in short bursts ahead of the device, and the kernels' fraction of the wall
time.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --only theirs plain ours --rounds 9 --seconds 4
    python benchmarks/throughput.py --device cuda --size 64 --seconds 2 --json out.json
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import example_gan
import torch
from gpu_tools import Peer, peer_process, requests, wait, write_json
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import TrialConfig
from pipeline.data import dataset
from pipeline.training.cuda_graphs import SWITCH
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.process import prepare_process
from pipeline.training.trainer import Trainer
from pipeline.user_code import read_code, use_code

BATCH, NOISE, RATE = 64, example_gan.NOISE, 2e-4
BF16 = "bfloat16"
_PROFILED = 32  # steps whose kernels are counted
_BURST, _BURSTS = 8, 5  # steps that fit the launch queue, and how often they are timed
_PATIENCE = 60.0  # seconds that a process may take beyond its turn

OURS: dict[str, dict[str, Any]] = {
    "ours": {"precision": BF16},
    "ours, float32": {},
    "ours, without EMA": {"precision": BF16, "ema_halflife_kimg": 0.0},
    "ours, batch 256": {"precision": BF16, "batch_size": 256},
    "ours, float32, batch 256": {"batch_size": 256},
    "ours, R1 every 16th step": {"precision": BF16, "penalty": "r1", "penalty_interval": 16},
}
EAGER = "ours, no graphs"
CUDNN_BENCHMARK = "cudnn.benchmark"
OURS_ON_GPU = OURS | {
    f"ours, {CUDNN_BENCHMARK}": {"precision": BF16},
    f"ours, float32, {CUDNN_BENCHMARK}": {},
    EAGER: {"precision": BF16},
}

PROFILED = ("plain", "ours", "ours, float32", EAGER)

Side = Generator[int, int | None, None]
"""A training loop that yields how many real images D has seen; `ours` takes a number of steps by `send`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", type=int, choices=(32, 64), default=32, help="of the images; 64 on a GPU")
    parser.add_argument(
        "--only", nargs="+", choices=("theirs", "plain", *OURS_ON_GPU), help="some of the rows"
    )
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    if args.size != 32 and args.device == "cpu":
        parser.error("the networks of the example are for 32 px")
    rows = ("theirs", "plain", *(OURS if args.device == "cpu" else OURS_ON_GPU))
    names = [name for name in rows if not args.only or name in args.only]
    speeds: dict[str, list[float]] = {name: [] for name in names}
    profiles: dict[str, dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        job = (args.clock, args.device, args.size)
        sides = {name: stack.enter_context(peer_process(train, name, *job)) for name in names}
        warm_up(sides)
        for _ in range(args.rounds):
            for name, side in sides.items():
                speed = side.ask(("turn", args.seconds), args.seconds + _PATIENCE)
                if speed:
                    speeds[name].append(speed)
            write_json(args.json, summary(speeds, profiles, args))
        for name in PROFILED:
            if args.device == "cuda" and name in sides:
                profiles[name] = sides[name].ask(("profile", 0.0), _PATIENCE) or {}
                write_json(args.json, summary(speeds, profiles, args))
        troubles = {name: side.trouble for name, side in sides.items() if side.trouble}
    found = summary(speeds, profiles, args, troubles)
    write_json(args.json, found)
    print_table(found, args)
    if troubles:
        raise SystemExit("; ".join(f"{name}: {trouble}" for name, trouble in troubles.items()))


def warm_up(sides: dict[str, Peer]) -> None:
    """Start all processes at the same time: libraries are loaded and CUDA graphs captured."""
    for side in sides.values():
        side.send(("turn", 1.0))
    for side in sides.values():
        side.receive(_PATIENCE)


def summary(
    speeds: dict[str, list[float]],
    profiles: dict[str, dict[str, float]],
    args: argparse.Namespace,
    troubles: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The results so far."""
    medians = {name: statistics.median(values) for name, values in speeds.items() if values}
    for name, profile in profiles.items():
        if profile.get("kernel_us_per_step") and name in medians:
            wall = 1e6 * batch_of(name) / medians[name]
            profile["wall_us_per_step"] = wall
            profile["of_kernel_floor"] = profile["kernel_us_per_step"] / wall
    ours = {name: medians[name] for name in ("ours", "ours, float32") if name in medians}
    best = max(ours, key=lambda name: ours[name], default=None)
    found = {"device": args.device, "size": args.size, "images_per_second": medians, "rounds": speeds}
    if best is not None:
        found["best"] = best
        found["best / plain"] = ours[best] / medians["plain"] if "plain" in medians else None
        found["best / theirs"] = ours[best] / medians["theirs"] if "theirs" in medians else None
    return {**found, "steps": profiles, "troubles": troubles or {}}


def batch_of(name: str) -> int:
    return int(OURS_ON_GPU.get(name, {}).get("batch_size", BATCH))


def train(name: str, clock: str, device: str, size: int, pipe: Connection) -> None:
    """The main function of a process: receives (what, seconds), sends images per second or a profile."""
    torch.set_num_threads(1)
    on = torch.device(device)
    if name in OURS_ON_GPU:
        os.environ[SWITCH] = str(int(name != EAGER))
        prepare_process(1, device)
        torch.backends.cudnn.benchmark = CUDNN_BENCHMARK in name
    images = digits() if device == "cpu" else noise(size).to(on)
    if name == "plain":
        side = plain(images)
    elif name == "theirs":
        side = theirs(images) if device == "cpu" else theirs_on_gpu(images)
    else:
        side = ours(images, OURS_ON_GPU[name])
    measure = time.perf_counter if clock == "wall" else time.thread_time
    for what, seconds in requests(pipe):
        result = turn(side, seconds, measure, on) if what == "turn" else profile(side, batch_of(name), on)
        pipe.send(result)


def turn(side: Side, seconds: float, clock: Callable[[], float], device: torch.device) -> float:
    """Real images per second over one turn."""
    wait(device)
    seen, start = 0, clock()
    while clock() - start < seconds:
        seen += next(side)
    wait(device)
    return seen / (clock() - start)


def profile(side: Side, batch: int, device: torch.device) -> dict[str, float]:
    """Kernels, their microseconds and the host's per step; without kernels where profiling is forbidden."""
    found = host_time(side, batch, device)
    kind = (
        torch.profiler.ProfilerActivity.CUDA if device.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    )
    try:
        with torch.profiler.profile(activities=[kind], acc_events=True) as profiler:
            steps = 0.0
            while steps < _PROFILED:
                steps += side.send(_BURST) / batch
            wait(device)
    except (RuntimeError, AssertionError) as error:  # a machine may forbid profiling
        print(f"no profile: {error}", flush=True)
        return found
    kernels = [k for k in profiler.key_averages() if k.device_type != torch.autograd.DeviceType.CPU]
    found["kernels_per_step"] = sum(k.count for k in kernels) / steps
    found["kernel_us_per_step"] = sum(k.self_device_time_total for k in kernels) / steps
    return found


def host_time(side: Side, batch: int, device: torch.device) -> dict[str, float]:
    """Medians over short bursts: CPU time of the Python thread (a backward pass runs in another thread), and
    time until all kernels are launched."""
    cpu_times, wall_times = [], []
    for _ in range(_BURSTS):
        wait(device)
        steps, cpu, wall = 0.0, time.thread_time(), time.perf_counter()
        while steps < _BURST:
            steps += side.send(_BURST) / batch
        cpu_times.append(1e6 * (time.thread_time() - cpu) / steps)
        wall_times.append(1e6 * (time.perf_counter() - wall) / steps)
    return {
        "python_us_per_step": statistics.median(cpu_times),
        "launch_us_per_step": statistics.median(wall_times),
    }


def print_table(found: dict[str, Any], args: argparse.Namespace) -> None:
    if args.device == "cuda":
        where = f"{torch.cuda.get_device_name()}, {args.size} px"
    else:
        has = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]
        where = f"one thread, bf16 units: {', '.join(has) or 'none'}"
    print(f"{where}, torch {torch.__version__}, {args.clock} clock")
    profiles, speeds = found["steps"], found["images_per_second"]
    peers = [peer for peer in ("theirs", "plain") if peer in speeds]
    head = "".join(f"{'/ ' + peer:>10}" for peer in peers)
    more = f"{'kernels':>9}{'their us':>10}{'Python us':>11}{'of floor':>10}" if profiles else ""
    print(f"{'':<28}{'img/s':>8}{head}{more}")
    for name, speed in speeds.items():
        ratios = "".join(f"{speed / speeds[peer]:10.2f}" for peer in peers)
        print(f"{name:<28}{speed:8.0f}{ratios}{cells(profiles.get(name, {}))}")
    if found.get("best / plain"):
        print(f"max(ours, ours float32) / plain: {found['best / plain']:.2f} ({found['best']})")


def cells(profile: dict[str, float]) -> str:
    """The last columns of a row."""
    if not profile:
        return ""
    kernels, busy = profile.get("kernels_per_step", 0), profile.get("kernel_us_per_step", 0)
    fraction = profile.get("of_kernel_floor", 0)
    return f"{kernels:9.0f}{busy:10.0f}{profile.get('python_us_per_step', 0):11.0f}{fraction:10.0%}"


def digits() -> Tensor:
    """uint8 (N,32,32,1): mnist5k, padded to 32 px."""
    train = torch.from_numpy(dataset.load_dataset("mnist5k").train)
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
    ready = dataset.to_float(images).contiguous()  # NCHW memory, as from its loader
    sampler, position = dataset.Sampler(len(images), 0), 0
    while True:
        batches = []
        for _ in range(common.train_iterations_per_step):
            batches.append((ready[torch.from_numpy(sampler.take(position, BATCH))],))
            position += BATCH
        common.train_func(net_d, net_g, adam_g, adam_d, nn.BCELoss(), batches, 1, torch.device("cpu"), None)
        yield BATCH * len(batches)


def theirs_on_gpu(images: Tensor) -> Side:
    """The reimplementation in `example_gan`."""
    device = images.device
    net_g, net_d = (net.to(device) for net in example_gan.pair(images.shape[1]))
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), lr=RATE, betas=(0.5, 0.999)) for n in (net_g, net_d))
    ready = dataset.to_float(images).contiguous()
    sampler, position = dataset.Sampler(len(images), 0), 0
    while True:
        rows = torch.from_numpy(sampler.take(position, 4 * BATCH)).to(device)
        position += 4 * BATCH
        example_gan.train(net_d, net_g, adam_g, adam_d, ready[rows].split(BATCH), device)
        yield 4 * BATCH


# --- The plain loop ------------------------------------------------------------------------------


def plain(images: Tensor) -> Side:
    """The loop of every tutorial; the sigmoid is part of the loss."""
    device = images.device
    net_g, net_d = (net.to(device) for net in networks(TrialConfig(), ImageShape(images.shape[1], 1)))
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), lr=RATE, betas=(0.5, 0.999)) for n in (net_g, net_d))
    ready = dataset.to_float(images).contiguous()
    ones, zeros = torch.ones(BATCH, device=device), torch.zeros(BATCH, device=device)
    bce = functional.binary_cross_entropy_with_logits
    sampler, position = dataset.Sampler(len(images), 0), 0
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
    """gansweep's trainer, one kimg at a time, or as many steps as are sent."""
    use_code(read_code(["throughput:networks"], [Path(__file__).resolve().parent]))
    basic = {"architecture": "throughput:networks", "z_dim": NOISE, "norm_d": "batch", "batch_size": BATCH}
    config = TrialConfig.from_dict({**basic, "lr_g": RATE, "lr_d": RATE, "kimg": 10**6, **changes})
    trainer = Trainer(config, images, None, 0)
    steps: int | None = None
    while True:
        before = trainer.nimg
        if steps is None:
            trainer.advance(before // 1000 + 1)
        else:
            end = before + steps * config.batch_size
            trainer.advance(10**6, should_stop=lambda end=end: trainer.nimg >= end)
        steps = yield trainer.nimg - before


def networks(config: TrialConfig, shape: ImageShape) -> tuple[nn.Module, nn.Module]:
    """The example's G and D as custom networks: z (N,Z) instead of (N,Z,1,1), logits without the sigmoid."""
    net_g, net_d = example_gan.pair(shape.size)
    generator = nn.Sequential(nn.Unflatten(1, (NOISE, 1, 1)), *net_g)
    return generator, nn.Sequential(*list(net_d)[:-1], nn.Flatten(0))


if __name__ == "__main__":
    main()
