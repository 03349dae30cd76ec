"""Small trials that share one GPU: real images per second of eight together against one alone.

Each trial is a process of its own, as Ray would start it, with one trainer on the default space's first
point; no Ray is needed. The images are noise: it takes as long as digits do. `--mps` starts NVIDIA's MPS
daemon for the processes (in a folder of its own, and ends it), where the machine has it: then their kernels
may run at the same time; without it they take turns. `--no-graphs` trains without CUDA graphs.

    python benchmarks/packing.py
    python benchmarks/packing.py --trials 1 4 8 16 --seconds 10 --mps --json out.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline import spaces
from pipeline.config import TrialConfig
from pipeline.graphs import SWITCH
from pipeline.process import prepare_process
from pipeline.trainer import Trainer

_PATIENCE = 120.0  # seconds that a trial may take to be warm


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 8], help="how many at a time")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--mps", action="store_true")
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    if args.mps and not shutil.which("nvidia-cuda-mps-control"):
        parser.error("nvidia-cuda-mps-control is not on this machine")
    os.environ[SWITCH] = str(int(not args.no_graphs))
    with daemon() if args.mps else contextlib.nullcontext():
        found = {count: together(count, args.seconds, args.device) for count in args.trials}
    alone = found[min(found)] / min(found)
    print(f"trials at a time, {'with' if args.mps else 'without'} MPS: real images per second in all")
    for count, speed in found.items():
        print(f"{count:4d} {speed:10.0f} {speed / alone:8.2f} times one alone")
    if args.json:
        args.json.write_text(json.dumps({"mps": args.mps, "images_per_second": found}, indent=1))


@contextlib.contextmanager
def daemon() -> Iterator[None]:
    """The MPS daemon, for the processes that start meanwhile."""
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        os.environ["CUDA_MPS_PIPE_DIRECTORY"] = os.environ["CUDA_MPS_LOG_DIRECTORY"] = folder
        subprocess.run(["nvidia-cuda-mps-control", "-d"], check=True, timeout=30)
        try:
            yield
        finally:
            with contextlib.suppress(subprocess.SubprocessError):
                subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, timeout=30)


def together(count: int, seconds: float, device: str) -> float:
    """Real images per second of `count` trials, added up over the same seconds."""
    context = multiprocessing.get_context("spawn")
    gate, seen = context.Barrier(count + 1, timeout=_PATIENCE), context.Array("q", count)
    over = context.Event()
    processes = [
        context.Process(target=work, args=(place, gate, over, seen, device), daemon=True)
        for place in range(count)
    ]
    try:
        for process in processes:
            process.start()
        gate.wait()
        start, before = time.perf_counter(), sum(seen)
        time.sleep(seconds)
        speed = (sum(seen) - before) / (time.perf_counter() - start)
        over.set()
        for process in processes:
            process.join(20)
        return speed
    except threading.BrokenBarrierError:
        raise SystemExit(f"{count} trials were not ready after {_PATIENCE:.0f} s") from None
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()


def work(place: int, gate: Any, over: Any, seen: Any, device: str) -> None:
    """The life of one trial: warm up, wait for the others, train until it is over."""
    prepare_process(1)
    space = spaces.load("mnist5k")
    config = TrialConfig.from_dict({**space.fixed, **space.enqueue[0], "kimg": 10**6, "seed": place})
    rng = torch.Generator().manual_seed(place)
    images = torch.randint(0, 256, (4500, 28, 28, 1), dtype=torch.uint8, generator=rng).to(device)
    labels = torch.randint(0, 10, (4500,), generator=rng).to(device)
    trainer = Trainer(config, images, labels if config.conditional else None, 10)

    def step(kimg: int) -> None:
        trainer.advance(trainer.nimg // 1000 + kimg)
        trainer.tally.read()  # as at the end of a tick: waits for the device

    step(1 if device == "cpu" else 20)
    gate.wait()
    while not over.is_set():
        step(1)
        seen[place] = trainer.nimg


if __name__ == "__main__":
    main()
