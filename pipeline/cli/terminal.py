"""What commands print: tables, lines, bars, and how a sweep is concluded.

Owns: the two consoles; results go to stdout, all else to stderr. Refuses: computing what it shows.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

_WIDTH = None if sys.stdout.isatty() else 160  # a log or a pipe wraps nothing


out_console = Console(width=_WIDTH, soft_wrap=True, highlight=False)


err_console = Console(stderr=True, soft_wrap=True, highlight=False)


def fail(message: str) -> NoReturn:
    err_console.print("error: " + " ".join(message.split()), markup=False)
    sys.exit(2)


def conclude(outcome: Any) -> None:
    """Print what came of a sweep, and leave with its exit code."""
    if outcome.state == "planned":
        table = Table(box=None, show_header=False, padding=(0, 2))
        for row in outcome.plan:
            table.add_row(*row)
        out_console.print(table)
        return
    if outcome.state == "interrupted":
        err_console.print(
            f"interrupted; go on with: gansweep resume {shlex.quote(outcome.place)}", markup=False
        )
        raise typer.Exit(130)
    leaderboard(outcome.summary)
    if outcome.summary.get("stopped_by"):
        out_console.print(f"stopped: {outcome.summary['reason']}", markup=False)
    _next_steps(outcome)
    if not outcome.summary.get("best"):
        err_console.print("no trial has a fid; the causes stand in the leaderboard")
        raise typer.Exit(1)


def leaderboard(summary: dict[str, Any], limit: int = 8) -> None:
    from pipeline.reporting.leaderboard import text_table

    rows = text_table(summary, limit)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in rows[0]:
        table.add_column(heading, no_wrap=heading != "params", overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    out_console.print(table)
    for final in summary.get("finalists", []):
        best, numbers = final["best"], final["measurement"]
        out_console.print(
            f"finalist {best['trial']}: fid {best['fid']:.2f} in [{numbers['fid_low']:.2f}, "
            f"{numbers['fid_high']:.2f}] of {numbers['n']} samples{_luck(final)}; "
            f"{'; '.join(numbers['verdicts']) or 'no copies, no collapse'}",
            markup=False,
        )


def _luck(final: dict[str, Any]) -> str:
    """The winner's curse of a finalist, and what its other seeds came to."""
    best, runs = final["best"], final.get("runs", [])
    text = f" (the search saw {best['search_fid']:.2f}"
    if best.get("gap") is not None:
        text += f", {best['fresh_fid']:.2f} with fresh latents: {best['gap']:+.2f} of luck"
    if len(runs) > 1:
        fids = ", ".join("none" if run["fid"] is None else f"{run['fid']:.2f}" for run in runs)
        text += f"; mean over {len(runs)} seeds {best['fid_mean']:.2f}: {fids}"
    return text + ")"


def _next_steps(outcome: Any) -> None:
    from pipeline.errors import redact
    from pipeline.tracking.tracking_uri import default_uri

    done, root = outcome.summary.get("registered"), shlex.quote(outcome.place)
    uri = shlex.quote(redact(outcome.tracking_uri))
    lines = [
        f"report   {root}/report.html",
        f"MLflow   mlflow ui --backend-store-uri {uri}",
        f"explain  gansweep explain {root}",
    ]
    if (Path(outcome.place) / "study.journal").exists():  # else it lives in a database
        lines.insert(2, f"Optuna   optuna-dashboard {root}/study.journal --artifact-dir {root}/gallery")
    if done:
        model = f"models:/{done['name']}@{done['alias']}" if done["alias"] else done["uri"]
        out_console.print(f"\n{model} is version {done['version']}: {done['reason']}", markup=False)
        store = "" if outcome.tracking_uri == default_uri(Path("runs")) else f" --tracking-uri {uri}"
        lines.insert(0, f"sample   gansweep sample {model} -n 100 --out samples.png{store}")
    out_console.print("\n".join(lines), markup=False)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line per tenth elsewhere; nothing for what is done at once."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*columns, console=err_console, disable=not err_console.is_terminal) as bar:
        task = bar.add_task("", total=None, visible=False)
        told = 0

        def advance(done: int, n: int) -> None:
            nonlocal told
            bar.update(task, completed=done, total=n, visible=True)
            if not err_console.is_terminal and done * 10 // n > told:
                told = done * 10 // n
                err_console.print(f"{done} of {n} images", markup=False)

        yield advance


class _LineHandler(RichHandler):
    """One line a message on stderr, never folded: INFO dim, WARNING and above after `warning: `."""

    def emit(self, record: logging.LogRecord) -> None:
        warns = record.levelno >= logging.WARNING
        text = ("warning: " if warns else "") + self.format(record)
        self.console.print(text, style=None if warns else "dim", markup=False)


def log_to_terminal(*, quiet: bool = False) -> None:
    """Print what this package logs on stderr; `quiet` leaves out all but warnings."""
    logger = logging.getLogger("pipeline")
    if not any(isinstance(handler, _LineHandler) for handler in logger.handlers):
        logger.addHandler(_LineHandler(console=err_console))
        logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


def live(quiet: bool) -> bool:
    return not quiet and err_console.is_terminal
