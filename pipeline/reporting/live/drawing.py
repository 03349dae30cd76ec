"""Renders the state of a running sweep: as one line, or as a block for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.reporting.live.progress import SweepProgress, TrialProgress
from pipeline.search.budgets import UNLIMITED
from pipeline.storage.readable import clock, readable_bytes, readable_number
from pipeline.storage.summary_file import SweepSummary

_MAX_ROWS = 12
_SPARKLINE_WIDTH = 32
_BAR_WIDTH = 16
_BARS = "".join(map(chr, range(0x2581, 0x2589)))  # one eighth of a block to a whole one
_PLAIN_BARS = "_.-=+*#@"
_COLOURS = {
    "healthy": "green",
    "d_wins": "blue",
    "g_wins": "yellow",
    "collapsed": "red",
    "diverged": "magenta",
}
_ONE_SIDED = 0.4  # below this balance the side that is ahead is named


def render_line(summary: SweepSummary) -> str:
    """The state of a sweep in one line."""
    return " | ".join([*_counts(summary), _best(summary), *_one_more_hour(summary), _passed(summary)])


def _counts(summary: SweepSummary) -> list[str]:
    trials = summary.trials
    ended = f"{trials.complete} done, {trials.pruned} pruned, {trials.failed} failed"
    speed = [f"{summary.images_per_sec / 1000:.1f} kimg/s"] if trials.running else []
    return [f"{ended}, {trials.running} running", f"{summary.kimg_total} kimg", *speed]


def _best(summary: SweepSummary) -> str:
    best = summary.best
    if best is None:
        return "no fid yet"
    balance = readable_number(best.balance, ".2f")
    return f"best fid {best.fid:.2f} (balance {balance}, trial {best.trial})"


def _one_more_hour(summary: SweepSummary) -> list[str]:
    """What one more hour should bring, where that is known."""
    more = summary.one_more_hour
    return [f"one more hour: {more}"] if more and more.gain is not None else []


def _passed(summary: SweepSummary) -> str:
    return clock(summary.wall_seconds) + time_left(summary)


def time_left(summary: SweepSummary) -> str:
    """How long the search may still take, as text; empty if unknown or if the sweep is over.

    The rest of the time budget, or of the trials at their speed so far, whichever is less.
    """
    if summary.state != "running":
        return ""
    spent, ended = summary.wall_seconds, summary.trials.ended
    estimates = [summary.time_budget_sec - spent] if summary.time_budget_sec else []
    if ended and summary.trials_asked < UNLIMITED:
        estimates.append(spent / ended * max(summary.trials_asked - ended, 0))
    return f", about {clock(max(min(estimates), 0))} left" if estimates else ""


def render_block(
    summary: SweepSummary, progress: SweepProgress, full_kimg: int | None = None, *, plain: bool = False
) -> Group:
    """The state of a sweep: counts, best fid and its history, running trials, trials that ended last, cost.

    full_kimg: length of a full trial in kimg, for the bars; None if unknown. plain: use ASCII only.
    """
    title = f"{summary.name}: {summary.state}, {_passed(summary)}"
    parts: list[RenderableType] = [_cut(title, "bold"), _cut(" | ".join(_counts(summary)))]
    parts.append(_cut(_best(summary)))
    parts += map(_cut, _one_more_hour(summary))
    if fids := progress.best_fids:
        drawn = sparkline(fids, plain=plain)
        parts.append(_cut(f"best fid so far {fids[0]:.4g} {drawn} {fids[-1]:.4g}"))
    if progress.running:
        parts.append(_table(progress.running, full_kimg, plain))
    parts += [_cut(_ended(trial), _COLOURS.get(trial.verdict, "")) for trial in reversed(progress.last_ended)]
    cost = f"cost so far: {progress.kimg} kimg, {clock(progress.seconds)} of trial time"
    cost += f", {summary.gpu_hours:.2f} GPU-hours" if summary.gpu_hours else ""
    cost += f", {summary.cost:.2f} to pay" if summary.cost else ""
    cost += f", {readable_bytes(summary.disk_bytes)} on disk" if summary.disk_bytes else ""
    parts.append(_cut(cost, "dim"))
    return Group(*parts)


def sparkline(values: Sequence[float], width: int = _SPARKLINE_WIDTH, *, plain: bool = False) -> str:
    """Numbers as at most `width` bars of eight heights, on a log scale if all of them are above 0."""
    bars = _PLAIN_BARS if plain else _BARS
    step = max(1.0, len(values) / width)
    count = min(width, len(values))
    shown = [values[min(len(values) - 1, math.ceil((i + 1) * step) - 1)] for i in range(count)]
    heights = [math.log(v) if min(shown) > 0 else v for v in shown]
    low, high = min(heights), max(heights)
    if high == low:
        return bars[0] * len(heights)
    return "".join(bars[round((h - low) / (high - low) * (len(bars) - 1))] for h in heights)


def _table(running: Iterable[TrialProgress], full_kimg: int | None, plain: bool) -> Table:
    table = Table(box=None, padding=(0, 1), show_edge=False, pad_edge=False)
    for heading in ("trial", "progress", "kimg", "best fid", "balance", "", "verdict"):
        # Only the bar may shrink: rich narrows columns that may wrap before all others.
        width = _BAR_WIDTH if heading == "progress" else None
        side: Any = "left" if heading in ("progress", "", "verdict") else "right"
        table.add_column(heading, justify=side, no_wrap=width is None, overflow="crop", max_width=width)
    trials = list(running)
    for trial in trials[:_MAX_ROWS]:
        verdict = Text(trial.verdict, style=_COLOURS.get(trial.verdict, ""))
        kimg = f"{trial.kimg}/{full_kimg}" if full_kimg else str(trial.kimg)
        bar = _bar(trial.kimg, full_kimg, plain)
        balance_now = trial.last.balance if trial.last else None
        fid, balance = (readable_number(value, ".2f") for value in (trial.best_fid, balance_now))
        table.add_row(str(trial.number), bar, kimg, fid, balance, _ahead(trial), verdict)
    if len(trials) > _MAX_ROWS:
        table.caption, table.caption_justify = f"and {len(trials) - _MAX_ROWS} more", "left"
    return table


def _bar(kimg: int, full_kimg: int | None, plain: bool) -> RenderableType:
    if not full_kimg:
        return ""
    if plain:
        done = min(10, round(10 * kimg / full_kimg))
        return "#" * done + "." * (10 - done)
    return ProgressBar(total=full_kimg, completed=min(kimg, full_kimg))


def _ahead(trial: TrialProgress) -> str:
    if trial.last is None or not trial.last.balance < _ONE_SIDED:
        return ""
    return "D ahead" if trial.last.auc > 0.5 else "G ahead"


def _ended(trial: TrialProgress) -> str:
    fid = "no fid" if trial.best_fid is None else f"fid {trial.best_fid:.4g}"
    why = f": {trial.cause}" if trial.cause else ""
    return f"trial {trial.number} {trial.ended} with {fid}, {trial.verdict or 'no verdict'}{why}"


def _cut(text: str, style: str = "") -> Text:
    """One line at any terminal width: a block that wraps cannot be redrawn in place."""
    return Text(" ".join(text.split()), style=style, no_wrap=True, overflow="crop")
