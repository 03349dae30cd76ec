"""The commands for a search: run, resume, report, validate, doctor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.cli.options import Storage, SweepDir, Tracking, take_options
from pipeline.cli.terminal import conclude, leaderboard, out_console
from pipeline.config import SweepPaths
from pipeline.reporting.log_lines import log_to_terminal
from pipeline.sweep.options import ResumeOptions, RunOptions


def _run(options: RunOptions) -> None:
    """Search. The same command again goes on with the sweep that exists."""
    _search(options)


def _resume(options: ResumeOptions) -> None:
    """Go on with an interrupted sweep; trials and budgets may grow."""
    _search(options)


def _search(options: RunOptions | ResumeOptions) -> None:
    from pipeline.sweep.build_request import build_request
    from pipeline.sweep.run import run_sweep

    log_to_terminal(quiet=options.quiet)
    conclude(run_sweep(build_request(options)))


run = take_options(_run, RunOptions)
resume = take_options(_resume, ResumeOptions)


def report(sweep_dir: SweepDir) -> None:
    """Print the leaderboard of a sweep, running or finished, and write its report.html."""
    os.nice(19)  # running trials have priority
    from pipeline.reporting.html.report import write_report
    from pipeline.storage.readonly_copy import readonly_copy
    from pipeline.storage.summary_file import no_sweep, read_summary

    with readonly_copy(sweep_dir, "report.html") as root:
        summary = read_summary(SweepPaths(root).summary)
        if summary is None:
            raise no_sweep(sweep_dir)
        leaderboard(summary)
        out_console.print(f"report: {write_report(root)}", markup=False)


def validate(
    files: Annotated[list[str], typer.Argument(help="Spaces (.toml) and cluster files (.yaml).")],
) -> None:
    """Check spaces and cluster files, offline."""
    from pipeline.cluster.jobs.files import check_cluster_file
    from pipeline.search.space.builtin import find_space, load_space
    from pipeline.search.space.notes import space_notes

    for file in files:
        if Path(file).suffix in (".yaml", ".yml"):
            notes = check_cluster_file(Path(file))
        else:
            space = load_space(file)
            end = f"before its {len(space.rules)} rules" if space.rules else f"hash {space.hash}"
            notes = [f"{len(space.search)} searched, {len(space.enqueue)} enqueued, {end}"]
            notes += space_notes(space, [find_space(file).parent, Path.cwd()])
        out_console.print("\n  ".join([f"{file}: ok", *notes]), markup=False)


def doctor(
    out: Annotated[str, typer.Option(metavar="DIR|URL", help="Where sweeps would be kept.")] = "runs",
    tracking_uri: Tracking = "",
    address: Annotated[str, typer.Option(help="Also check this Ray cluster.")] = "",
    storage: Storage = "",
) -> None:
    """Check what this machine (and a cluster) has for a sweep."""
    from pipeline.cli.doctor.diagnose import diagnose

    findings = diagnose(out, tracking_uri, address, storage)
    table = Table(box=None, show_header=False, padding=(0, 2))
    colours = {"ok": "green", "warn": "yellow", "bad": "red"}
    for finding in findings:
        table.add_row(f"[{colours[finding.level]}]{finding.level}[/]", finding.name, escape(finding.text))
    out_console.print(table)
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(1)
