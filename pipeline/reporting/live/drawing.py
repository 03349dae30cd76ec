"""The picture of a running sweep: one line, or a calm block for a terminal.

Owns: what is shown and how. Refuses: reading files, redrawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.reporting.live.progress import SweepProgress, TrialProgress
from pipeline.storage.files import readable

_SHOWN = 12
_WIDTH = 32
_BAR = 16
_BARS = "".join(map(chr, range(0x2581, 0x2589)))  # one eighth of a block to a whole one
_PLAIN_BARS = "_.-=+*#@"
_COLOURS = {
    "healthy": "green",
    "d_wins": "blue",
    "g_wins": "yellow",
    "collapsed": "red",
    "diverged": "magenta",
}
_AHEAD = 0.4  # below this balance one says who is ahead


def line(summary: Mapping[str, Any]) -> str:
    """The state of a sweep in one line."""
    passed = clock(summary["wall_seconds"]) + left(summary)
    return " | ".join([*_counts(summary), _best(summary), passed])


def _counts(summary: Mapping[str, Any]) -> list[str]:
    trials = summary["trials"]
    ended = f"{trials['complete']} done, {trials['pruned']} pruned, {trials['failed']} failed"
    speed = [f"{summary.get('images_per_sec', 0) / 1000:.1f} kimg/s"] if trials["running"] else []
    return [f"{ended}, {trials['running']} running", f"{summary['kimg_total']} kimg", *speed]


def _best(summary: Mapping[str, Any]) -> str:
    best = summary["best"]
    if not best:
        return "no fid yet"
    return f"best fid {best['fid']:.2f} (balance {_number(best['balance'])}, trial {best['trial']})"


def left(summary: Mapping[str, Any]) -> str:
    """How long the search may still take: the time budget's rest, or the pace of the trials so far."""
    if summary.get("state", "running") != "running":
        return ""
    spent, budget, trials = summary["wall_seconds"], summary.get("time_budget_sec"), summary["trials"]
    over = trials["complete"] + trials["pruned"] + trials["failed"]
    rests = [budget - spent] if budget else []
    if over:
        rests.append(spent / over * max(summary.get("trials_asked", over) - over, 0))
    return f", about {clock(max(min(rests), 0))} left" if rests else ""


def block(
    summary: Mapping[str, Any], pulse: SweepProgress, full_kimg: int | None = None, *, plain: bool = False
) -> Group:
    """The state of a sweep: numbers, the fid's course, a row per running trial, the last ends, the cost.

    full_kimg: length of a full trial, for the bars. plain: ASCII only.
    """
    passed = clock(summary["wall_seconds"]) + left(summary)
    title = f"{summary['name']}: {summary.get('state', 'running')}, {passed}"
    parts: list[RenderableType] = [_cut(title, "bold"), _cut(" | ".join(_counts(summary)))]
    parts.append(_cut(_best(summary)))
    if pulse.bests:
        drawn = sparkline(pulse.bests, plain=plain)
        parts.append(_cut(f"its course {pulse.bests[0]:.4g} {drawn} {pulse.bests[-1]:.4g}"))
    if pulse.running:
        parts.append(_table(pulse.running, full_kimg, plain))
    parts += [_cut(_ended(beat), _COLOURS.get(beat.verdict, "")) for beat in reversed(pulse.last)]
    gpus = summary.get("gpu_hours")
    cost = f"cost so far: {pulse.kimg} kimg, {clock(pulse.seconds)} of trial time"
    cost += f", {gpus:.2f} GPU-hours" if gpus else ""
    price, disk = summary.get("cost"), summary.get("disk_bytes")
    cost += f", {price:.2f} to pay" if price else ""
    parts.append(_cut(cost + (f", {readable(disk)} on disk" if disk else ""), "dim"))
    return Group(*parts)


def sparkline(values: Sequence[float], width: int = _WIDTH, *, plain: bool = False) -> str:
    """Numbers as bars of eight heights, on a log scale where they are above 0; `width` bars at most."""
    bars = _PLAIN_BARS if plain else _BARS
    step = max(1.0, len(values) / width)
    count = min(width, len(values))
    shown = [values[min(len(values) - 1, math.ceil((i + 1) * step) - 1)] for i in range(count)]
    heights = [math.log(v) if min(shown) > 0 else v for v in shown]
    low, high = min(heights), max(heights)
    if high == low:
        return bars[0] * len(heights)
    return "".join(bars[round((h - low) / (high - low) * (len(bars) - 1))] for h in heights)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _table(running: Iterable[TrialProgress], full_kimg: int | None, plain: bool) -> Table:
    table = Table(box=None, padding=(0, 1), show_edge=False, pad_edge=False)
    for heading in ("trial", "progress", "kimg", "best fid", "balance", "", "verdict"):
        # The bar alone may shrink: rich narrows the columns that may wrap before all others.
        shrinks = heading == "progress"
        side: Any = "left" if heading in ("progress", "", "verdict") else "right"
        table.add_column(
            heading, justify=side, no_wrap=not shrinks, overflow="crop", max_width=_BAR if shrinks else None
        )
    beats = list(running)
    for beat in beats[:_SHOWN]:
        verdict = Text(beat.verdict, style=_COLOURS.get(beat.verdict, ""))
        kimg = f"{beat.kimg}/{full_kimg}" if full_kimg else str(beat.kimg)
        bar = _bar(beat.kimg, full_kimg, plain)
        table.add_row(
            str(beat.trial), bar, kimg, _number(beat.fid), _number(beat.balance), _ahead(beat), verdict
        )
    if len(beats) > _SHOWN:
        table.caption, table.caption_justify = f"and {len(beats) - _SHOWN} more", "left"
    return table


def _bar(kimg: int, full_kimg: int | None, plain: bool) -> RenderableType:
    if not full_kimg:
        return ""
    if plain:
        done = min(10, round(10 * kimg / full_kimg))
        return "#" * done + "." * (10 - done)
    return ProgressBar(total=full_kimg, completed=min(kimg, full_kimg))


def _ahead(beat: TrialProgress) -> str:
    if beat.balance is None or beat.auc is None or beat.balance >= _AHEAD:
        return ""
    return "D ahead" if beat.auc > 0.5 else "G ahead"


def _ended(beat: TrialProgress) -> str:
    fid = "no fid" if beat.fid is None else f"fid {beat.fid:.4g}"
    why = f": {beat.cause}" if beat.cause else ""
    return f"trial {beat.trial} {beat.ended} with {fid}, {beat.verdict or 'no verdict'}{why}"


def _cut(text: str, style: str = "") -> Text:
    """One line whatever the terminal's width: a block that wraps cannot be redrawn in place."""
    return Text(" ".join(text.split()), style=style, no_wrap=True, overflow="crop")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
