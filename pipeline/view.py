"""The live view of a sweep, drawn from its summary.json alone: one calm block, or plain lines.

Owns: what a person sees while a sweep runs. Refuses: touching the search; it may run elsewhere.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.config import SweepPaths
from pipeline.files import read_json

_REFRESH_SEC = 1.0
_LINE_SEC = 15.0


class View:
    """Shows a sweep until left. live: redraw in place; else a line now and then through `say`."""

    def __init__(self, paths: SweepPaths, *, live: bool, say: Callable[[str], None]) -> None:
        self._paths, self._say = paths, say
        self._console = Console(file=sys.stderr)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if live else None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="view", daemon=True)

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join(timeout=5.0)
        if self._live:
            self._live.stop()

    def _watch(self) -> None:
        said = ""
        period = _REFRESH_SEC if self._live else _LINE_SEC
        while not self._done.wait(period):
            summary = read_json(self._paths.summary)
            if not summary:
                continue
            if self._live:
                self._live.update(block(summary), refresh=True)
            elif (text := line(summary)) != said:
                self._say(text)
                said = text


def line(summary: dict[str, Any]) -> str:
    """The state of a sweep in one line."""
    trials, best = summary["trials"], summary["best"]
    parts = [
        f"{trials['complete']} done, {trials['pruned']} pruned, {trials['failed']} failed,"
        f" {trials['running']} running",
        f"best fid {best['fid']:.2f} (balance {best['balance']:.2f}, trial {best['trial']})"
        if best
        else "no fid yet",
        f"{summary['kimg_total']} kimg",
        f"{summary['images_per_sec'] / 1000:.1f} kimg/s",
        clock(summary["wall_seconds"]) + left(summary),
    ]
    return " | ".join(parts)


def left(summary: dict[str, Any]) -> str:
    """How long the search may still take: the time budget's rest, or the pace of the trials so far."""
    spent, budget, trials = summary["wall_seconds"], summary["time_budget_sec"], summary["trials"]
    over = trials["complete"] + trials["pruned"] + trials["failed"]
    rests = [budget - spent] if budget else []
    if over:
        rests.append(spent / over * max(summary["trials_asked"] - over, 0))
    return f", about {clock(max(min(rests), 0))} left" if rests else ""


def block(summary: dict[str, Any]) -> Group:
    """The state of a sweep as a few lines and a row per running trial."""
    rows = Table(box=None, padding=(0, 2), show_edge=False)
    for heading in ("trial", "kimg", "fid", "balance", "verdict"):
        rows.add_column(heading, justify="right", style="dim" if heading == "trial" else "")
    for row in summary["running"][:12]:
        fid, balance = _number(row["fid"]), _number(row["balance"])
        rows.add_row(str(row["trial"]), str(row["last_kimg"]), fid, balance, row["verdict"])
    return Group(Text(summary["name"], style="bold"), Text(line(summary)), rows)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
