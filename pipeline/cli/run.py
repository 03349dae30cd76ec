"""The commands for a search: run, resume, report, validate, doctor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import Storage, SweepDir, Tracking, take_options
from pipeline.cli.outcome import conclude, print_finalists, print_leaderboard
from pipeline.cli.terminal import out_console, print_rows
from pipeline.config import SweepPaths
from pipeline.reporting.log_lines import log_to_terminal
from pipeline.sweep.options import ResumeOptions, RunOptions


def _run(options: RunOptions) -> None:
    """Search, measure the best again, register the champion.

    The same command again resumes an existing sweep.
    """
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
    """Print a sweep's leaderboard and write its report.html.

    Of a running sweep too. Also prints every finalist with its interval, and the commands that show the sweep
    in MLflow's and Optuna's own pages.
    """
    os.nice(19)  # running trials have priority
    from pipeline.reporting.history import read_history
    from pipeline.reporting.html.commands import tools
    from pipeline.reporting.html.report import write_page
    from pipeline.storage.readonly_copy import readonly_copy
    from pipeline.storage.summary_file import no_sweep, read_summary

    with readonly_copy(sweep_dir, "report.html") as root:
        summary = read_summary(SweepPaths(root).summary)
        if summary is None:
            raise no_sweep(sweep_dir)
        print_leaderboard(summary)
        print_finalists(summary)
        history = read_history(root)
        for where, command in tools(history).items():
            if where in ("in MLflow", "in Optuna"):
                out_console.print(f"{where}: {command}", markup=False)
        out_console.print(f"report: {write_page(history)}", markup=False)


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
        out_console.print(f"{file}: ok", markup=False)
        print_rows([("", note) for note in notes])


def doctor(
    out: Annotated[str, typer.Option(metavar="DIR|URL", help="Where sweeps would be kept.")] = "runs",
    tracking_uri: Tracking = "",
    address: Annotated[str, typer.Option(help="Also check this Ray cluster.")] = "",
    storage: Storage = "",
) -> None:
    """Check what this machine, or a cluster, has for a sweep."""
    from pipeline.cli.doctor.diagnose import diagnose

    findings = diagnose(out, tracking_uri, address, storage)
    colours = {"ok": "green", "warn": "yellow", "bad": "red"}
    print_rows([(one.level, one.name, one.text) for one in findings], colours=colours)
    if any(finding.level == "bad" for finding in findings):
        raise typer.Exit(1)
