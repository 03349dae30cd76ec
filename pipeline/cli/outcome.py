"""What a sweep came to, as `run`, `resume` and `report` print it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from pathlib import Path

import typer

from pipeline.cli.terminal import out_console, print_rows
from pipeline.errors import redact
from pipeline.reporting.leaderboard import text_table
from pipeline.reporting.log_lines import err_console
from pipeline.storage.summary_file import FinalistRow, SweepSummary
from pipeline.sweep.result import Result
from pipeline.tracking.tracking_uri import default_uri

log = logging.getLogger(__name__)

GOOD = "no copies, no collapse"
"""The verdict on a generator that passed the checks for copies and mode collapse."""


def conclude(result: Result) -> None:
    """Print what a sweep came to; raise typer.Exit with the command's exit code where that is not 0."""
    if result.state == "planned":
        print_rows(result.plan)
        return
    if result.state == "interrupted":
        err_console.print(f"interrupted; go on with: {result.resume_command}", markup=False)
        raise typer.Exit(130)
    summary = result.summary
    assert summary is not None
    if summary.stopped_by:
        log.info(f"stopped: {summary.reason}")
    print_leaderboard(summary)
    out_console.print()
    for label, text in closing_lines(result):
        out_console.print(f"{label:<8}{text}", markup=False)
    if result.undone:
        again = f"complete it with: {result.resume_command}"
        err_console.print("\n".join([*result.undone, again]), markup=False)
        raise typer.Exit(1)
    if not summary.best:
        err_console.print("no trial has a fid; the leaderboard lists the causes")
        raise typer.Exit(1)


def print_leaderboard(summary: SweepSummary) -> None:
    """Print the best eight trials of summary.json."""
    print_rows(text_table(summary, 8), heading=True)


def print_finalists(summary: SweepSummary) -> None:
    """Print the finalists of summary.json, each with its interval and verdict."""
    print_rows([(f"finalist {final.best.trial}", _finalist(final)) for final in summary.finalists])


def closing_lines(result: Result) -> Iterator[tuple[str, str]]:
    """Five lines of (label, text): the best, its model, the report, and the two commands to go on with.

    Without a measured generator there are none about the best, its model and its samples.
    """
    summary, root = result.summary, shlex.quote(result.location)
    assert summary is not None
    if summary.best:
        yield "result", _best(summary)
        yield "model", _model(result, root)
    yield "report", f"{root}/report.html"
    if summary.finalists:
        yield "sample", _sample(result, root)
    yield "explain", f"gansweep explain {root}"


def _best(summary: SweepSummary) -> str:
    """`trial 3: fid 24.21 [23.54, 24.89], balance 0.47, no copies, no collapse`."""
    best = summary.best
    assert best is not None
    interval, verdict = "", "not measured again"
    if summary.finalists:
        measured = summary.finalists[0].measurement
        interval = f" [{measured.fid_low:.2f}, {measured.fid_high:.2f}]"
        verdict = "; ".join(measured.verdicts) or GOOD
    balance = "" if best.balance is None else f", balance {best.balance:.2f}"
    return f"trial {best.trial}: fid {best.fid:.2f}{interval}{balance}, {verdict}"


def _model(result: Result, root: str) -> str:
    registered = result.registered
    if registered is None:
        return f"not registered; gansweep register {root}"
    reason = registered.reason.removeprefix("registered; ")
    return f"{registered.model}, version {registered.version}: {reason}"


def _sample(result: Result, root: str) -> str:
    registered, store = result.registered, ""
    if registered and result.tracking_uri != default_uri(Path("runs")):
        store = f" --tracking-uri {shlex.quote(redact(result.tracking_uri))}"
    model = shlex.quote(registered.model) if registered else root
    return f"gansweep sample {model} -n 100 --out samples.png{store}"


def _finalist(final: FinalistRow) -> str:
    best, measured = final.best, final.measurement
    return (
        f"fid {best.fid:.2f} [{measured.fid_low:.2f}, {measured.fid_high:.2f}] "
        f"of {measured.n} samples{_search_bias(final)}; {'; '.join(measured.verdicts) or GOOD}"
    )


def _search_bias(final: FinalistRow) -> str:
    """A finalist's fid during the search, the selection bias in it, and the fids of its other seeds."""
    best, runs = final.best, final.runs
    text = f" ({best.search_fid:.2f} during the search"
    if best.gap is not None and best.fresh_fid is not None:
        text += f", {best.fresh_fid:.2f} with fresh latents: {best.gap:+.2f} of selection bias"
    if len(runs) > 1 and best.fid_mean is not None:
        fids = ", ".join("none" if run.fid is None else f"{run.fid:.2f}" for run in runs)
        text += f"; mean over {len(runs)} seeds {best.fid_mean:.2f}: {fids}"
    return text + ")"
