"""The results of `gpu_check.py`: targets, all other numbers, and the files with them."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_tools import machine, write_json
from split import Split


class Report:
    """All results so far, on disk after every change."""

    def __init__(self, out: Path, device: str) -> None:
        self._out, self._gpu = out, device == "cuda"
        self._results: dict[str, Any] = {"machine": machine(), "parts": {}}
        self._began = time.perf_counter()
        self._written: dict[str, dict[str, Any]] = {}
        (out / "gpu_check.log").write_text("")

    def set_result(self, name: str, result: dict[str, Any]) -> None:
        """Store the result of a part, and write the files if more than its seconds has changed."""
        content = {**result, "seconds": 0}
        self._results["parts"][name] = result
        if content != self._written.get(name):
            self._written[name] = content
            self._write()

    def add_text(self, name: str, text: str) -> None:
        """Add the output of a part."""
        print(text[-2500:], flush=True)
        with (self._out / "gpu_check.log").open("a") as stream:
            stream.write(f"--- {name}\n{text}\n")

    def close(self) -> bool:
        """Print the table; returns whether anything has failed."""
        self._write()
        print((self._out / "gpu_check.md").read_text(), flush=True)
        ended = all(part["state"] in ("done", "left out") for part in self._results["parts"].values())
        return not ended or (
            self._gpu and any(target.verdict != "pass" for target in targets(self._results["parts"]))
        )

    def _write(self) -> None:
        parts = self._results["parts"]
        self._results["seconds"] = round(time.perf_counter() - self._began, 1)
        self._results["targets"] = [vars(target) | {"verdict": target.verdict} for target in targets(parts)]
        write_json(self._out / "gpu_check.json", self._results)
        (self._out / "gpu_check.md").write_text(table(self._results))


@dataclass(frozen=True)
class Target:
    """A target. figure: what was measured, None = nothing."""

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


def at_least(name: str, least: float, figure: float | None, note: str = "") -> Target:
    return Target(name, f">= {least:g}", figure, figure is not None and figure >= least, note)


def targets(parts: dict[str, Any]) -> list[Target]:
    """All targets, with what was measured."""
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
        fid_target(get(parts, "fid", "found") or {}),
        equal_target("graph = eager, bit for bit", get(parts, "equality", "found", "configs") or {}, True),
        equal_target(
            "resumed = uninterrupted, bit for bit", get(parts, "equality", "found", "resumed") or {}, False
        ),
        memory_target(get(parts, "memory", "found") or {}),
        tests_target(get(parts, "tests", "found") or {}, get(parts, "tests", "state")),
    ]


def get(found: Any, *path: str) -> Any:
    """The value at a path in nested dictionaries, or None."""
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def first_share(trials: dict[str, Any]) -> str:
    share = trials.get("training_share_first")
    return "" if share is None else f"the process's first trial: {share:.2f}"


def fid_target(found: dict[str, Any]) -> Target:
    relative = {name: one.get("relative") for name, one in found.get("extractors", {}).items()}
    known = [value for value in relative.values() if value is not None]
    worst = max(known, default=None)
    note = "; ".join(
        [*(f"{n}: {v:.1e}" for n, v in relative.items() if v is not None), *found.get("left_out", [])]
    )
    whole = bool(relative) and len(known) == len(relative)
    return Target("fid, GPU against CPU: relative", "< 1e-4", worst, whole and worst < 1e-4, note)


def equal_target(name: str, found: dict[str, Any], graphs: bool) -> Target:
    """The figure is how many are equal, of those whose eager steps are repeatable; the others are noted."""
    not_repeatable = [config for config, one in found.items() if get(one, "eager again", "equal") is False]
    counted = {config: one for config, one in found.items() if config not in not_repeatable}
    bad = [
        f"{config}: {one['most']:.2g} in {one['where']}"
        for config, one in counted.items()
        if not one["equal"]
    ]
    without = [config for config, one in counted.items() if graphs and one.get("graphs") != "yes"]
    notes = [
        *bad,
        *(f"{c}: no graphs" for c in without),
        *(f"{c}: eager is not repeatable" for c in not_repeatable),
    ]
    good = len(counted) - len(bad)
    reached = bool(counted) and not bad and not without
    return Target(name, f"all of {len(counted)}", good if found else None, reached, "; ".join(notes))


def memory_target(found: dict[str, Any]) -> Target:
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
    return Target("the GPU's memory after 50 trials, less after 5: MiB", "<= 64", grown, enough, note)


def tests_target(found: dict[str, Any], state: str | None) -> Target:
    bad = [f"{name}: {one['state'][:120]}" for name, one in found.items() if one["state"] != "passed"]
    if state not in (None, "done", "left out"):
        bad.append(f"the part: {state}")
    good = sum(one["state"] == "passed" for one in found.values())
    return Target(
        "tests/integration/gpu", f"all of {len(found)}", good if found else None, not bad, "; ".join(bad)
    )


def table(results: dict[str, Any]) -> str:
    """Markdown: the machine, the targets, what else was measured, the states of the parts."""
    rows = [
        f"| {one.name} | {one.wanted} | {shown(one.figure)} | {one.verdict} | {clean(one.note)} |"
        for one in targets(results["parts"])
    ]
    numbers = [f"| {name} | {clean(value)} |" for name, value in other_results(results["parts"])]
    states = [
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
            *states,
            "",
        ]
    )


def shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3g}"


def clean(text: Any) -> str:
    return str(text).replace("|", "/").replace("\n", " ")


def other_results(parts: dict[str, Any]) -> list[tuple[str, str]]:
    """Results without a target."""
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
