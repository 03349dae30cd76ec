"""Training on images that do not fit in memory: memory-mapped under a limit, against the same images in
memory.

A set of noise images of 4 GiB is prepared as any data set is. Two processes train the same networks on it, in
turns of a few seconds: one on the images in memory; the other on the memory-mapped file, within a control
group that may hold 2 GiB, page cache included, so that about half of all reads come from the disk. Printed
are the medians in real images per second, their ratio, and the most memory that each held. Needs root and
Linux's memory control groups (version 1 or 2).

    python benchmarks/mapped.py
    python benchmarks/mapped.py --size 64 --gib 4 --limit 2 --rounds 7 --json out.json
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from gpu_tools import write_json

from pipeline.config import TrialConfig
from pipeline.data.preparing.prepared import ImageFile, map_array
from pipeline.training.process import prepare_process
from pipeline.training.trainer import Trainer

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_BLOCK = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--gib", type=float, default=4.0, help="size of the set")
    parser.add_argument("--limit", type=float, default=2.0, help="GiB that the mapped side may hold")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=6.0, help="of a turn")
    parser.add_argument("--width", type=int, default=16, help="of both networks: small ones read the most")
    parser.add_argument("--folder", type=Path, help="where the set is made (the temporary folder)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        file = write_noise(Path(folder) / "images.npy", args.size, args.gib)
        rates = compare(file, args)
    for name, (rate, peak) in rates.items():
        print(f"{name:10} {rate:8.0f} images/s   at most {peak:.2f} GiB")
    ratio = rates["mapped"][0] / rates["in memory"][0]
    print(f"ratio      {ratio:8.3f}")
    if args.json:
        write_json(args.json, {"ratio": ratio, "images_per_second": rates})


def write_noise(path: Path, size: int, gib: float) -> Path:
    count = int(gib * 2**30) // (size * size * 3)
    file, rng = ImageFile(path, (count, size, size, 3)), np.random.default_rng(0)
    for start in range(0, count, _BLOCK):
        file.append(rng.integers(0, 256, (min(_BLOCK, count - start), size, size, 3), np.uint8))
    file.close()
    return path


def forget(file: Path) -> None:
    """Remove a file from the page cache: whoever reads it next holds what it reads."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare(file: Path, args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    context, sides = get_context("spawn"), {}
    with control_group(args.limit) as (join, peak), contextlib.ExitStack() as stack:
        for name, group in (("in memory", None), ("mapped", join)):
            forget(file)
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, file, args.width, group), daemon=True)
            process.start()
            stack.callback(process.terminate)
            sides[name] = here
            here.recv()
        found: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, connection in sides.items():
                connection.send(args.seconds)
                found[name].append(connection.recv())
        peaks = {"mapped": peak.read_text(encoding="utf-8"), "in memory": ""}
        sides["in memory"].send(0.0)
        peaks["in memory"] = str(sides["in memory"].recv())
    return {name: (statistics.median(values), float(peaks[name]) / 2**30) for name, values in found.items()}


@contextlib.contextmanager
def control_group(limit_gib: float) -> Iterator[tuple[Path, Path]]:
    """A group whose processes may hold `limit_gib`: the file to join it by, and the file of its peak."""
    version_1 = (_V1 / "memory.limit_in_bytes").exists()
    group = (_V1 if version_1 else _V2) / f"gansweep-benchmark-{os.getpid()}"
    group.mkdir()
    try:
        limit, peak = (
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
            if version_1
            else ("memory.max", "memory.peak")
        )
        (group / limit).write_text(str(int(limit_gib * 2**30)), encoding="utf-8")
        yield group / "cgroup.procs", group / peak
    finally:
        time.sleep(0.5)  # until its processes have ended
        with contextlib.suppress(OSError):
            group.rmdir()


def serve(connection: Connection, file: Path, width: int, group: Path | None) -> None:
    """Train for as many seconds as are sent and answer with the rate; for 0 with the peak in bytes."""
    if group is not None:
        group.write_text(str(os.getpid()), encoding="utf-8")
    prepare_process(1)
    images = map_array(file)
    if group is None:
        images = np.array(images)
    else:  # the group is full from the beginning: every page that is read drives out another
        for start in range(0, len(images), _BLOCK):
            images[start : start + _BLOCK].sum()
    config = TrialConfig(architecture="dcgan", width_g=width, width_d=width, batch_size=64, kimg=10**6)
    trainer = Trainer(config, torch.from_numpy(images), None, 0)
    trainer.advance(10**6, should_stop=lambda: trainer.nimg >= 64 * 30)
    connection.send("ready")
    while True:
        seconds = connection.recv()
        if not seconds:
            import resource

            connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            continue
        began, before = time.perf_counter(), trainer.nimg
        trainer.advance(10**6, should_stop=lambda end=began + seconds: time.perf_counter() >= end)
        connection.send((trainer.nimg - before) / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
