"""How fast a folder of JPEGs is prepared, against Pillow decoding the same files on the same cores.

Made are colour photographs of 256 px (crops of scikit-learn's two, recoloured; each JPEG about 20 kB).

- Pillow: `Image.open(file).convert("RGB")` to an array, on a thread for each core; nothing is kept;
- prepare: `load_dataset` into an empty cache: headers, layout, decoding, split, copies, fingerprint, on disk;
- again: the second start.

Each row is a process of its own, and they take turns. Printed are seconds, images per second, the ratio of
the medians, the most memory that preparing held, and what the second start read.

    python benchmarks/prepare.py
    python benchmarks/prepare.py --images 100000 --rounds 1 --folder /large/disk --json out.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from gpu_tools import write_json
from PIL import Image

_PER_FOLDER = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256, help="of the JPEGs, in pixels")
    parser.add_argument("--size", type=int, default=0, help="of the prepared images; 0 = chosen: 256")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where all files are made (the temporary folder)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--jpegs", type=Path, help="JPEGs that are there already")
    args = parser.parse_args()
    if args.row:
        print(json.dumps(measure(args.row, args.jpegs, args.size)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        jpegs = args.jpegs or make_jpegs(Path(folder) / "jpegs", args.images, args.side)
        report(compare(jpegs, Path(folder) / "cache", args), args)


def compare(jpegs: Path, cache: Path, args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"Pillow": [], "prepare": [], "again": []}
    for _ in range(args.rounds):
        shutil.rmtree(cache, ignore_errors=True)
        for row, rows in found.items():
            command = [
                sys.executable,
                __file__,
                "--row",
                row,
                "--jpegs",
                str(jpegs),
                "--size",
                str(args.size),
            ]
            environment = {**os.environ, "GANSWEEP_CACHE": str(cache)}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def measure(row: str, jpegs: Path, size: int) -> dict[str, Any]:
    """One row, in this process."""
    if row == "Pillow":
        files = sorted(jpegs.rglob("*.jpg"))
        began = time.perf_counter()
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for _ in pool.map(decode, files):
                pass
        return {"seconds": time.perf_counter() - began, "images": len(files)}
    from pipeline.data.dataset import load_dataset
    from pipeline.data.options import DataOptions

    began, read = time.perf_counter(), _read_bytes()
    dataset = load_dataset(f"folder:{jpegs}", DataOptions(size=size, classes="none"))
    return {
        "seconds": time.perf_counter() - began,
        "images": len(dataset.train) + len(dataset.held),
        "anonymous_gib": _status("RssAnon") / 2**20,
        "peak_gib": _status("VmHWM") / 2**20,
        "read_mb": (_read_bytes() - read) / 1e6,
        "fingerprint": dataset.fingerprint,
    }


def decode(file: Path) -> None:
    with Image.open(file) as image:
        np.asarray(image.convert("RGB"))


def _read_bytes() -> int:
    """Bytes that this process has read by system calls, from files that are cached too."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(dict(line.split(":", 1) for line in lines)[key].split()[0])


def report(found: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> None:
    medians = {row: statistics.median(r["seconds"] for r in rows) for row, rows in found.items()}
    images = found["prepare"][0]["images"]
    for row, seconds in medians.items():
        print(f"{row:10} {seconds:8.2f} s  {images / seconds:10.0f} images/s")
    ratio = medians["Pillow"] / medians["prepare"]
    anonymous = max(r["anonymous_gib"] for r in found["prepare"])
    peak = max(r["peak_gib"] for r in found["prepare"])
    read = max(r["read_mb"] for r in found["again"])
    print(f"ratio {ratio:.2f} of Pillow's speed; at most {peak:.2f} GiB resident, {anonymous:.2f} at the end")
    print(f"the second start read {read:.1f} MB")
    if args.json:
        write_json(args.json, {"ratio": ratio, "peak_gib": peak, "second_start_read_mb": read, **found})


def make_jpegs(root: Path, count: int, side: int) -> Path:
    with ProcessPoolExecutor() as pool:
        list(
            pool.map(
                _make_folder,
                *zip(
                    *(
                        (root, start, min(start + _PER_FOLDER, count), side)
                        for start in range(0, count, _PER_FOLDER)
                    ),
                    strict=True,
                ),
            )
        )
    return root


def _make_folder(root: Path, start: int, end: int, side: int) -> None:
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(array) for array in load_sample_images().images]
    folder, rng = root / f"{start // _PER_FOLDER:03d}", np.random.default_rng(start)
    folder.mkdir(parents=True)
    for i in range(start, end):
        photograph, crop = photographs[i % 2], int(rng.integers(200, 400))
        x, y = int(rng.integers(photograph.width - crop)), int(rng.integers(photograph.height - crop))
        array = np.asarray(photograph.crop((x, y, x + crop, y + crop)).resize((side, side))).astype(
            np.float32
        )
        array = array * rng.uniform(0.6, 1.2, 3) + rng.uniform(-30, 30, 3)
        Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(folder / f"{i:06d}.jpg", quality=90)


if __name__ == "__main__":
    main()
