"""What commands print: results to stdout; log lines, progress and errors to stderr."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.errors import redact
from pipeline.reporting.leaderboard import text_table
from pipeline.reporting.log_lines import err_console
from pipeline.storage.summary_file import FinalistRow, SweepSummary
from pipeline.sweep.result import Result
from pipeline.tracking.tracking_uri import default_uri

# Off a terminal wide enough for tables in a log or a pipe.
out_console = Console(width=None if sys.stdout.isatty() else 160, soft_wrap=True, highlight=False)


def conclude(result: Result) -> None:
    """Print what a sweep came to; raise typer.Exit with the command's exit code where that is not 0."""
    if result.state == "planned":
        table = Table(box=None, show_header=False, padding=(0, 2))
        for row in result.plan:
            table.add_row(*map(escape, row))
        out_console.print(table)
        return
    if result.state == "interrupted":
        err_console.print(f"interrupted; go on with: {result.resume_command}", markup=False)
        raise typer.Exit(130)
    summary = result.summary
    assert summary is not None
    leaderboard(summary)
    if summary.stopped_by:
        out_console.print(f"stopped: {summary.reason}", markup=False)
    _next_steps(result)
    if result.undone:
        again = f"complete it with: {result.resume_command}"
        err_console.print("\n".join([*result.undone, again]), markup=False)
        raise typer.Exit(1)
    if not summary.best:
        err_console.print("no trial has a fid; the leaderboard lists the causes")
        raise typer.Exit(1)


def leaderboard(summary: SweepSummary) -> None:
    """Print the best eight trials and the finalists of summary.json."""
    rows = text_table(summary, 8)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in rows[0]:
        table.add_column(heading, no_wrap=heading != "params", overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    out_console.print(table)
    for final in summary.finalists:
        best, measured = final.best, final.measurement
        out_console.print(
            f"finalist {best.trial}: fid {best.fid:.2f} in [{measured.fid_low:.2f}, "
            f"{measured.fid_high:.2f}] of {measured.n} samples{_search_bias(final)}; "
            f"{'; '.join(measured.verdicts) or 'no copies, no collapse'}",
            markup=False,
        )


def _search_bias(final: FinalistRow) -> str:
    """How much better the search saw a finalist (the winner's curse), and the fids of its other seeds."""
    best, runs = final.best, final.runs
    text = f" (the search saw {best.search_fid:.2f}"
    if best.gap is not None and best.fresh_fid is not None:
        text += f", {best.fresh_fid:.2f} with fresh latents: {best.gap:+.2f} of selection bias"
    if len(runs) > 1 and best.fid_mean is not None:
        fids = ", ".join("none" if run.fid is None else f"{run.fid:.2f}" for run in runs)
        text += f"; mean over {len(runs)} seeds {best.fid_mean:.2f}: {fids}"
    return text + ")"


def _next_steps(result: Result) -> None:
    """Print where the results are, and the commands to use them."""
    registered, root = result.registered, shlex.quote(result.location)
    uri = shlex.quote(redact(result.tracking_uri))
    lines = [
        f"report   {root}/report.html",
        f"MLflow   mlflow ui --backend-store-uri {uri}",
        f"explain  gansweep explain {root}",
    ]
    if (Path(result.location) / "study.journal").exists():  # otherwise it is in a database
        lines.insert(2, f"Optuna   optuna-dashboard {root}/study.journal --artifact-dir {root}/gallery")
    if registered:
        model = registered.model
        out_console.print(f"\n{model} is version {registered.version}: {registered.reason}", markup=False)
        store = "" if result.tracking_uri == default_uri(Path("runs")) else f" --tracking-uri {uri}"
        lines.insert(0, f"sample   gansweep sample {shlex.quote(model)} -n 100 --out samples.png{store}")
    out_console.print("\n".join(lines), markup=False)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, a line per tenth elsewhere.

    Yields a function to call with the number of images done and the number in all.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*columns, console=err_console, disable=not err_console.is_terminal) as bar:
        task = bar.add_task("", total=None, visible=False)
        printed = 0  # tenths

        def advance(done: int, n: int) -> None:
            nonlocal printed
            bar.update(task, completed=done, total=n, visible=True)
            if not err_console.is_terminal and done * 10 // n > printed:
                printed = done * 10 // n
                err_console.print(f"{done} of {n} images", markup=False)

        yield advance
