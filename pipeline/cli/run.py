"""The commands for a search: run, resume, report, validate, doctor."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.cli.options import (
    DEFAULTS,
    Concurrency,
    CostBudget,
    Data,
    DryRun,
    Extractor,
    FinalSeeds,
    GpuHours,
    GpusPerTrial,
    HangAfter,
    Kimg,
    MaxFailures,
    Notify,
    Out,
    Price,
    Promote,
    Quiet,
    Recipe,
    Require,
    Settings,
    SweepDir,
    TargetFid,
    TimeBudget,
    Tracking,
    Trials,
    Wait,
)
from pipeline.cli.request import build_changes, build_request
from pipeline.cli.terminal import conclude, leaderboard, log_to_terminal, out_console, wants_live_view
from pipeline.config import SweepPaths
from pipeline.errors import SweepError
from pipeline.reporting.webhook import check_webhook


def run(
    space: Annotated[str, typer.Option(help="A space: TOML file or the name of a built-in one.")] = "mnist5k",
    data: Data = DEFAULTS.data,
    recipe: Recipe = "",
    name: Annotated[str, typer.Option(help="Name of the sweep and its folder (the space's).")] = "",
    out: Out = "runs",
    trials: Trials = None,
    kimg: Kimg = None,
    time_budget: TimeBudget = "",
    gpu_hours: GpuHours = None,
    cost_budget: CostBudget = None,
    price: Price = "",
    max_failures: MaxFailures = None,
    target_fid: TargetFid = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search and of every trial.")] = 0,
    set_: Settings = None,
    hang_after: HangAfter = "",
    wait: Wait = "30m",
    sampler: Annotated[str, typer.Option(help="tpe or random.")] = DEFAULTS.sampler,
    pruner: Annotated[str, typer.Option(help="asha, hyperband, median or none.")] = DEFAULTS.pruner,
    cpus_per_trial: Annotated[float, typer.Option(help="CPU cores (and threads) of one trial.")] = 1.0,
    gpus_per_trial: GpusPerTrial = "auto",
    require: Require = "",
    concurrency: Concurrency = None,
    address: Annotated[str, typer.Option(help="Ray cluster: local, auto or HOST:PORT.")] = "local",
    storage: Annotated[
        str, typer.Option(envvar="GANSWEEP_STORAGE", help="Optuna database URL (a file of the sweep).")
    ] = "",
    tracking_uri: Tracking = "",
    register: Annotated[str, typer.Option(help="Register the best as this model (the sweep's name).")] = "",
    no_register: Annotated[bool, typer.Option("--no-register", help="Register nothing.")] = False,
    promote: Promote = "champion",
    extractor: Extractor = DEFAULTS.extractor,
    extractor_weights: Annotated[str, typer.Option(help="Local weights of the inception extractor.")] = "",
    fid_samples: Annotated[int, typer.Option(help="Generated images per fid.")] = DEFAULTS.fid_samples,
    final_samples: Annotated[int, typer.Option(help="Per fid of a finalist (2.5 times as many).")] = 0,
    final_seeds: FinalSeeds = None,
    image_size: Annotated[int, typer.Option(help="Side of folder images (chosen).")] = 0,
    dry_run: DryRun = False,
    notify: Notify = "",
    quiet: Quiet = False,
) -> None:
    """Search. The same command again goes on with the sweep that exists."""
    from pipeline.sweep.run import run_sweep

    log_to_terminal(quiet=quiet)
    conclude(run_sweep(build_request(locals())))


def resume(
    sweep_dir: SweepDir,
    trials: Trials = None,
    time_budget: TimeBudget = "",
    gpu_hours: GpuHours = None,
    cost_budget: CostBudget = None,
    price: Price = "",
    max_failures: MaxFailures = None,
    target_fid: TargetFid = None,
    hang_after: HangAfter = "",
    wait: Wait = "",
    concurrency: Concurrency = None,
    tracking_uri: Tracking = "",
    storage: Annotated[str, typer.Option(envvar="GANSWEEP_STORAGE", help="Optuna database URL.")] = "",
    notify: Notify = "",
    quiet: Quiet = False,
) -> None:
    """Go on with an interrupted sweep; trials and budgets may grow."""
    from pipeline.sweep.run import resume_sweep

    log_to_terminal(quiet=quiet)
    outcome = resume_sweep(
        sweep_dir,
        build_changes(locals()),
        tracking_uri=tracking_uri,
        storage=storage,
        notify=check_webhook(notify),
        live=wants_live_view(quiet),
    )
    conclude(outcome)


def report(sweep_dir: SweepDir) -> None:
    """Print the leaderboard of a sweep, running or finished, and write its report.html."""
    os.nice(19)  # running trials have priority
    from pipeline.reporting.html.report import write_report
    from pipeline.storage.readonly_copy import readonly_copy
    from pipeline.storage.summary_file import read_summary

    with readonly_copy(sweep_dir, "report.html") as root:
        summary = read_summary(SweepPaths(root).summary)
        if not summary:
            raise SweepError(
                "there is no sweep in {seen}",
                rule="a sweep's folder holds a summary.json",
                seen=sweep_dir,
                fix="name the folder that `run` made",
            )
        leaderboard(summary)
        out_console.print(f"report: {write_report(root)}")


def validate(
    files: Annotated[list[str], typer.Argument(help="Spaces (.toml) and cluster files (.yaml).")],
) -> None:
    """Check spaces and cluster files, offline."""
    from pipeline.cluster.jobs.files import check_cluster_file
    from pipeline.search.space.builtin import load_space

    for file in files:
        if Path(file).suffix in (".yaml", ".yml"):
            notes = check_cluster_file(Path(file))
        else:
            space = load_space(file)
            notes = [f"{len(space.search)} searched, {len(space.enqueue)} enqueued, hash {space.hash}"]
        out_console.print("\n  ".join([f"{file}: ok", *notes]), markup=False)


def doctor(
    out: Annotated[str, typer.Option(metavar="DIR|URL", help="Where sweeps would be kept.")] = "runs",
    tracking_uri: Tracking = "",
    address: Annotated[str, typer.Option(help="Also check this Ray cluster.")] = "",
) -> None:
    """Check what this machine (and a cluster) has for a sweep."""
    from pipeline.cli.doctor.diagnose import diagnose, worst_level

    findings = diagnose(out, tracking_uri or None, address or None)
    table = Table(box=None, show_header=False, padding=(0, 2))
    colours = {"ok": "green", "warn": "yellow", "bad": "red"}
    for finding in findings:
        table.add_row(f"[{colours[finding.level]}]{finding.level}[/]", finding.name, escape(finding.text))
    out_console.print(table)
    if worst_level(findings) == "bad":
        raise typer.Exit(1)
