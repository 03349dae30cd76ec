"""All that only a GPU can show, in one call of under nine minutes, with torch alone (no Ray, Optuna, MLflow).

    python benchmarks/gpu_check.py --out results
    python benchmarks/gpu_check.py --out results --only tests maths --images digits.npz

- tests: `tests/test_gpu.py`: every kind of step is replayed, 200 steps by graph are 200 steps, fallbacks,
  checkpoints, images of the host, 50 trials in flat memory, a batch halved where memory is short;
- speed32, speed64: `throughput.py`; packing, packing-mps: `packing.py`, the latter where MPS is installed;
- maths: how far apart graph and eager are after 200 steps, beside two eager runs of other seeds;
- fid (with --images, an npz as `--data npz:` takes it): `equal_fid.py`, 5 seeds with and without all speed.

Each part is a process with a time limit of its own: one that fails or hangs costs the others nothing. After
each, `results/gpu_check.json` is written anew, and its output added to `gpu_check.log`. Ends with a table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 530.0  # seconds, all parts together

MATHS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "lazy R1": {"penalty": "r1", "penalty_interval": 4},
    "R1 + R2, relativistic": {"penalty": "r1r2", "loss": "relativistic", "norm_g": "none"},
    "augmented": {"augment": "diffaugment", "augment_p": 0.5},
}


@dataclass(frozen=True)
class Part:
    """A script of ours that writes JSON to the file put for FOUND; at most so many seconds."""

    name: str
    arguments: tuple[str, ...]
    seconds: float


def parts(device: str, images: Path | None) -> list[Part]:
    """What is done, the most wanted first."""
    bench = ("benchmarks/throughput.py", "--device", device, "--json", "FOUND", "--rounds", "3")
    pack = ("benchmarks/packing.py", "--device", device, "--json", "FOUND", "--seconds", "5")
    tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests/test_gpu.py")
    found = [
        Part("tests", (*tests, "--durations=8", "--junitxml", "FOUND"), 240),
        Part("speed32", (*bench, "--seconds", "1.5"), 80),
        Part("packing", (*pack, "--trials", "1", "8"), 70),
        Part("maths", (__file__, "--maths", "FOUND", "--device", device), 60),
        *([Part("speed64", (*bench, "--seconds", "1", "--size", "64"), 80)] if device == "cuda" else []),
    ]
    if shutil.which("nvidia-cuda-mps-control"):
        found.append(Part("packing-mps", (*pack, "--trials", "1", "8", "--mps"), 70))
    if images is not None:
        source = ("--data", f"npz:{images.resolve()}", "--kimg", "20")
        found.append(Part("fid", ("benchmarks/equal_fid.py", "--device", device, *source), 150))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try this script")
    parser.add_argument("--only", nargs="+", help="some of the parts")
    parser.add_argument("--images", type=Path, help="npz for the fid part")
    parser.add_argument("--maths", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.maths:
        args.maths.write_text(json.dumps(maths(args.device), indent=1))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that no part outlives this
    end = time.perf_counter() + LIMIT
    results: dict[str, Any] = {"machine": machine(), "parts": {}}
    for part in parts(args.device, args.images):
        if args.only and part.name not in args.only:
            continue
        print(f"--- {part.name}", flush=True)
        results["parts"][part.name] = run(part, args.out, min(part.seconds, end - time.perf_counter()))
        (args.out / "gpu_check.json").write_text(json.dumps(results, indent=1))
    table(results)
    if any(part["state"] != "done" for part in results["parts"].values()):
        raise SystemExit(1)


def run(part: Part, out: Path, seconds: float) -> dict[str, Any]:
    """Do one part; whatever happens, say how it went."""
    if seconds < 5:
        return {"state": "no time left"}
    with tempfile.TemporaryDirectory(prefix="gpu_check") as folder:
        result, text = attempt(part, Path(folder) / "found", Path(folder) / "log", seconds)
    print(text[-3000:], flush=True)
    with (out / "gpu_check.log").open("a") as stream:
        stream.write(f"--- {part.name}\n{text}\n")
    return result


def attempt(part: Part, found: Path, log: Path, seconds: float) -> tuple[dict[str, Any], str]:
    """The part in a process of its own: its result and its output."""
    command = [sys.executable, *(str(found) if a == "FOUND" else a for a in part.arguments)]
    paths = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    began = time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
            state = "done" if code == 0 else f"exit {code}"
        except subprocess.TimeoutExpired:
            state = f"over its {seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
            process.wait()
    text = log.read_text(errors="replace")
    result: dict[str, Any] = {"state": state, "seconds": round(time.perf_counter() - began, 1)}
    try:
        result["found"] = outcomes(found) if part.name == "tests" else json.loads(found.read_text())
    except (OSError, ValueError, ElementTree.ParseError):
        result["said"] = text[-3000:]
    return result, text


def outcomes(report: Path) -> dict[str, Any]:
    """Of every test: passed, skipped or the first line of its failure; and what it recorded."""
    found: dict[str, Any] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        told = {p.get("name"): p.get("value") for p in case.iter("property")}
        trouble = [child for child in case if child.tag in ("failure", "error", "skipped")]
        state = f"{trouble[0].tag}: {(trouble[0].get('message') or '')[:300]}" if trouble else "passed"
        found[str(case.get("name"))] = {"state": state, "seconds": case.get("time"), **told}
    return found


def maths(device: str) -> dict[str, Any]:
    """||difference|| / ||weights|| of G after 200 steps: graph, eager again, another seed, against eager."""
    from pipeline.config import TrialConfig
    from pipeline.graphs import SWITCH
    from pipeline.trainer import Trainer

    torch.backends.cudnn.deterministic = True
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2000, 28, 28, 1), dtype=torch.uint8, generator=rng).to(device)

    def play(graphs: bool, seed: int, **changes: Any) -> torch.Tensor:
        os.environ[SWITCH] = str(int(graphs))
        config = TrialConfig(width_g=16, width_d=16, batch_size=32, seed=seed, **changes)
        trainer = Trainer(config, images, None, 0)
        trainer.advance(10**6, should_stop=lambda: trainer.d_steps >= 200)
        recorded = trainer._recorded
        if graphs and device == "cuda" and (recorded is None or recorded.replays.given_up):
            raise SystemExit("no graphs")
        return torch.cat([p.detach().flatten() for p in trainer.G.parameters()]).double()

    found = {}
    for name, changes in MATHS.items():
        eager = play(False, 0, **changes)
        others = {"graph": (True, 0), "eager again": (False, 0), "another seed": (False, 1)}
        found[name] = {
            other: float((play(*how, **changes) - eager).norm() / eager.norm())
            for other, how in others.items()
        }
        print(name, found[name], flush=True)
    return found


def machine() -> dict[str, Any]:
    """Where this was."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "mps": bool(shutil.which("nvidia-cuda-mps-control")),
    }


def table(results: dict[str, Any]) -> None:
    """A line or two for each part."""
    print("\n" + ", ".join(f"{name} {value}" for name, value in results["machine"].items()))
    for name, part in results["parts"].items():
        print(f"{name:<13}{part['state']:<16}{part.get('seconds', 0):>7.1f} s")
        found = part.get("found", {})
        if name == "tests":
            bad = {test: one["state"] for test, one in found.items() if one["state"] != "passed"}
            print(f"    {len(found) - len(bad)} of {len(found)} passed")
            for test, state in bad.items():
                print(f"    {test}: {state}")
        elif "images_per_second" in found:
            speeds = found["images_per_second"]
            base = speeds.get("theirs") or min(speeds.values())
            print(
                "    " + ", ".join(f"{row} {speed:.0f} ({speed / base:.1f})" for row, speed in speeds.items())
            )
        elif name == "maths":
            for game, apart in found.items():
                print(f"    {game}: " + ", ".join(f"{other} {value:.2g}" for other, value in apart.items()))


if __name__ == "__main__":
    main()
