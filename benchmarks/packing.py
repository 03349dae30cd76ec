"""Small trials that share one GPU: trials per hour of eight together, compared with one alone.

Each process does what a sweep's worker does, without Ray: a short trial to warm up, then, when all are ready,
whole trials (`trials.py`: the default space's first point, 24 ticks with fid, picture and checkpoint), until
each has done `--each` of them or `--limit` seconds have passed; what was trained until then counts.
`--mps` starts NVIDIA's MPS daemon for the processes (in folders of its own, and ends it), where the machine
has it: then their kernels may run at the same time; without it they take turns. `--bare` trains only, on
noise, for `--seconds`, and prints real images per second. `--no-graphs` trains without CUDA graphs.

    python benchmarks/packing.py
    python benchmarks/packing.py --trials 1 8 16 --mps --json out.json
    python benchmarks/packing.py --bare --trials 1 4 8 --seconds 10
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_tools import write_json
from trials import Work, add_work, load_data, work_of

from pipeline.cluster import mps
from pipeline.training import trial
from pipeline.training.cuda_graphs import SWITCH
from pipeline.training.process import prepare_process
from pipeline.training.trainer import Trainer

PERCENT = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
"""With MPS: the share of a GPU's processors that one process may use."""
_PATIENCE = 90.0  # seconds in which the processes have to be warmed up


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    add_work(parser)
    parser.set_defaults(device="cuda")
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 8], help="how many at a time")
    parser.add_argument("--each", type=int, default=2, help="whole trials of each process")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for the trials of one number")
    parser.add_argument("--bare", action="store_true", help="train only")
    parser.add_argument("--seconds", type=float, default=6.0, help="with --bare")
    parser.add_argument("--mps", action="store_true")
    parser.add_argument("--mps-folder", type=Path, help="where the daemon keeps its pipes and logs")
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    if args.mps and not mps.find_program():
        parser.error("nvidia-cuda-mps-control is not on this machine")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the daemon is ended
    os.environ[SWITCH] = str(int(not args.no_graphs))
    work = work_of(args)
    if not args.bare:
        load_data(work, "cpu")  # once, before several processes read the cache
    found: dict[str, Any] = {"mps": args.mps, "bare": args.bare, "each": args.each, "kimg": work.kimg}
    with daemon(args.mps_folder) if args.mps else contextlib.nullcontext() as folder:
        for count, percent in settings(args):
            name = f"{count}" if percent == 100 else f"{count}, {percent} % of the GPU each"
            os.environ[PERCENT] = str(percent)
            found.setdefault("together", {})[name] = together(count, work, args)
            if folder is not None:
                found["mps_served"], found["mps_state"] = served(folder), mps.state()
            write_json(args.json, compared(found))
    print_table(found)
    if any("trouble" in one for one in found["together"].values()):
        raise SystemExit(1)


def settings(args: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """(trials at a time, percentage of the GPU's processors for each)."""
    for count in args.trials:
        yield count, 100
        if args.mps and count > 2:
            yield count, 200 // count  # as NVIDIA advises: twice as many as there are


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """The results, each with its ratio to one alone, where that was measured."""
    alone = found["together"].get("1", {}).get("speed")
    for one in found["together"].values():
        if alone and "speed" in one:
            one["times one alone"] = one["speed"] / alone
    return found


def print_table(found: dict[str, Any]) -> None:
    unit = "real images per second" if found["bare"] else f"trials of {found['kimg']} kimg per hour"
    print(f"trials at a time, {'with' if found['mps'] else 'without'} MPS: {unit} in all")
    for count, one in found["together"].items():
        if "speed" in one:
            ratio = one.get("times one alone")
            print(f"{count:<28}{one['speed']:10.0f}" + (f" {ratio:8.2f} times one alone" if ratio else ""))
        if "trouble" in one:
            print(f"{count:<28}{one['trouble']}")


# --- MPS -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def daemon(where: Path | None = None) -> Iterator[Path]:
    """Run the MPS daemon for the processes that start during the block."""
    with tempfile.TemporaryDirectory(prefix="mps") as spare:
        folder = where or Path(spare)
        for name, variable in (("pipe", mps.PIPE), ("log", mps.LOG)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            os.environ[variable] = str(folder / name)
        env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        try:
            subprocess.run([str(mps.find_program()), "-d"], check=True, timeout=30, env=env)
            yield folder
        finally:
            quit_daemon(folder)


def quit_daemon(folder: Path) -> None:
    """End the daemon of this folder, if it is running."""
    program, pipes = mps.find_program(), folder / "pipe"
    if program is None or not pipes.is_dir():
        return
    env = {**os.environ, mps.PIPE: str(pipes)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.suppress(subprocess.SubprocessError, OSError):
        subprocess.run([program], input="quit\n", text=True, timeout=10, env=env, **quiet)
    with contextlib.suppress(OSError, ValueError):  # one that did not react
        pid = int((pipes / f"{Path(program).name}.pid").read_text())
        os.kill(pid, signal.SIGTERM)


def served(folder: Path) -> bool:
    """Whether a server has had clients."""
    with contextlib.suppress(OSError):
        return (folder / "log" / "server.log").stat().st_size > 0
    return False


# --- The processes -------------------------------------------------------------------------------


def together(count: int, work: Work, args: argparse.Namespace) -> dict[str, Any]:
    """What `count` processes do in an hour, or with --bare in a second, in all."""
    context = multiprocessing.get_context("spawn")
    ready, seen = context.Array("b", count), context.Array("d", count)
    go, over = context.Event(), context.Event()
    target, target_args = (train, (work.device,)) if args.bare else (do_trials, (work, args.each))
    processes = [
        context.Process(target=target, args=(index, ready, go, over, seen, *target_args), daemon=True)
        for index in range(count)
    ]
    try:
        began = time.perf_counter()
        for process in processes:
            process.start()
        trouble = until(lambda: all(ready), processes, _PATIENCE)
        if trouble:
            return {"trouble": f"{count} together: {trouble} before they were warm"}
        warm, start, before = time.perf_counter() - began, time.perf_counter(), sum(seen)
        go.set()
        if args.bare:
            trouble, finished = until(lambda: False, processes, args.seconds), False
        else:
            end = args.each * work.kimg
            trouble = until(lambda: min(seen) >= end, processes, args.limit)
            finished = min(seen) >= end
        passed, kimg = time.perf_counter() - start, sum(seen) - before
        over.set()
        found = {"warm_seconds": warm, "seconds": passed, "kimg": kimg, "finished": finished}
        found["speed"] = 1000 * kimg / passed if args.bare else 3600 * kimg / work.kimg / passed
        return {**found, "trouble": trouble} if trouble == _ENDED else found
    finally:
        over.set()
        end_all(processes)


_ENDED, _LATE = "a process ended with an error", "not all were in time"


def until(done: Callable[[], bool], processes: list[Any], seconds: float) -> str:
    """Wait until `done`, for at most so many seconds. Returns why it is not, or ""."""
    end = time.perf_counter() + seconds
    while not done():
        if any(process.exitcode for process in processes):
            return _ENDED
        if time.perf_counter() > end:
            return _LATE
        time.sleep(0.005)
    return ""


def end_all(processes: list[Any]) -> None:
    """Let them end by themselves first: MPS does not handle clients well that are killed in a kernel."""
    deadline = time.perf_counter() + 5
    for process in processes:
        if process.pid is not None:
            process.join(max(0.0, deadline - time.perf_counter()))
    for process in processes:
        if process.is_alive():
            process.terminate()
            process.join(5)
        if process.is_alive():
            process.kill()
            process.join(5)


def do_trials(index: int, ready: Any, go: Any, over: Any, seen: Any, work: Work, each: int) -> None:
    """A short trial; then, when all are ready, whole ones. seen: kimg of the yielded records."""
    dataset, evaluator = load_data(work, work.device)
    short = replace(work, tick_kimg=max(1, work.tick_kimg // 2)).config(work.tick_kimg, seed=index)
    whole = [work.config(work.kimg, seed=100 * (number + 1) + index) for number in range(each)]
    with tempfile.TemporaryDirectory(prefix="packing") as folder:
        for number, config in enumerate((short, *whole)):
            if number == 1:
                ready[index] = 1
                go.wait()
            if over.is_set():
                break
            last = 0
            where = Path(folder) / str(number)
            for record in trial.run_trial(
                config,
                dataset,
                evaluator,
                where,
                trial.TrialSettings(device=work.device, should_stop=over.is_set),
            ):
                if number:
                    seen[index] += record.kimg - last
                last = record.kimg
    over.wait(60)  # closing a CUDA context makes the other processes wait


def train(index: int, ready: Any, go: Any, over: Any, seen: Any, device: str) -> None:
    """Training only, on noise."""
    prepare_process(1, device)
    config = Work().config(10**6, seed=index)
    rng = torch.Generator().manual_seed(index)
    images = torch.randint(0, 256, (4500, 28, 28, 1), dtype=torch.uint8, generator=rng).to(device)
    labels = torch.randint(0, 10, (4500,), generator=rng).to(device)
    trainer = Trainer(config, images, labels, 10)

    def step(kimg: int) -> None:
        trainer.advance(trainer.nimg // 1000 + kimg)
        trainer.metrics.read()  # as at the end of a tick: waits for the device

    step(1 if device == "cpu" else 20)
    ready[index] = 1
    go.wait()
    while not over.is_set():
        step(1)
        seen[index] = trainer.nimg / 1000


if __name__ == "__main__":
    main()
