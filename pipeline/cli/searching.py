"""The commands around a search: run, resume, report, validate, doctor.

Owns: their flags. Refuses: everything but one call each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pipeline.cli.arguments import (
    DEFAULTS,
    UNLIMITED,
    Concurrency,
    GpuHours,
    Promote,
    Quiet,
    TimeBudget,
    Tracking,
    Trials,
    seconds,
    settings,
    share,
)
from pipeline.cli.terminal import conclude, leaderboard, live, out_console, sayer
from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import SweepError


def run(
    space: Annotated[str, typer.Option(help="A space: TOML file or shipped name.")] = "mnist5k",
    data: Annotated[
        str, typer.Option(help="mnist5k, digits, cifar10, ..., folder:PATH or npz:PATH.")
    ] = DEFAULTS.data,
    recipe: Annotated[
        str, typer.Option(help="Begin from a published point: dcgan, sngan, wgan-gp, r1 or r3gan.")
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the sweep and its folder (the space's).")] = "",
    out: Annotated[Path, typer.Option(help="Where sweeps live.")] = Path("runs"),
    trials: Trials = None,
    kimg: Annotated[
        int | None, typer.Option(min=1, help="Length of a full trial in kimg (the space's).")
    ] = None,
    time_budget: TimeBudget = "",
    gpu_hours: GpuHours = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search and of every trial.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Fix a hyper-parameter; repeatable."),
    ] = None,
    sampler: Annotated[str, typer.Option(help="tpe or random.")] = DEFAULTS.sampler,
    pruner: Annotated[str, typer.Option(help="asha, hyperband, median or none.")] = DEFAULTS.pruner,
    cpus_per_trial: Annotated[float, typer.Option(help="CPU cores (and threads) of one trial.")] = 1.0,
    gpus_per_trial: Annotated[str, typer.Option(help="GPU share of one trial, or auto.")] = "auto",
    concurrency: Concurrency = None,
    address: Annotated[str, typer.Option(help="Ray cluster: local, auto or HOST:PORT.")] = "local",
    storage: Annotated[
        str, typer.Option(envvar="GANSWEEP_STORAGE", help="Optuna database URL (a file of the sweep).")
    ] = "",
    tracking_uri: Tracking = "",
    register: Annotated[str, typer.Option(help="Register the best as this model (the sweep's name).")] = "",
    no_register: Annotated[bool, typer.Option("--no-register", help="Register nothing.")] = False,
    promote: Promote = "champion",
    extractor: Annotated[
        str, typer.Option(help="What fid measures in: auto, classifier, inception, pixels, module:function.")
    ] = DEFAULTS.extractor,
    extractor_weights: Annotated[str, typer.Option(help="Local weights of the inception extractor.")] = "",
    fid_samples: Annotated[int, typer.Option(help="Generated images per fid.")] = DEFAULTS.fid_samples,
    final_samples: Annotated[int, typer.Option(help="Per fid of a finalist (2.5 times as many).")] = 0,
    final_seeds: Annotated[
        int | None, typer.Option(min=0, help="Other seeds finalists are trained with (2 beyond ten minutes).")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Side of folder images (chosen).")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, stop.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Search. Repeated with the same arguments, it goes on with the sweep that is there."""
    from pipeline import spaces, sweep

    chosen = spaces.load(space)
    fixed = settings(set_ or [])
    if kimg is not None:
        fixed["kimg"] = kimg
    if fixed:
        chosen = chosen.override(fixed)
    budget = seconds(time_budget)
    config = SweepConfig(
        name=name or Path(space).stem,
        data=data,
        space=space,
        image_size=image_size,
        trials=trials or (UNLIMITED if budget or gpu_hours else DEFAULTS.trials),
        time_budget_sec=budget,
        gpu_hours=gpu_hours or 0.0,
        seed=seed,
        sampler=sampler,
        pruner=pruner,
        extractor=extractor,
        extractor_weights=extractor_weights,
        fid_samples=fid_samples,
        final_samples=final_samples,
        final_seeds=-1 if final_seeds is None else final_seeds,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=share(gpus_per_trial),
        concurrency=concurrency or 0,
        address=address,
    )
    outcome = sweep.run(
        sweep.Request(
            space=chosen,
            config=config,
            out=out,
            register=None if no_register else register or config.name,
            promote=promote,
            recipe=recipe,
            kept=frozenset(fixed),
            code=spaces.find(space).absolute().parent,
            tracking_uri=tracking_uri,
            storage=storage,
            dry_run=dry_run,
            live=live(quiet),
            say=sayer(quiet),
        )
    )
    conclude(outcome)


def resume(
    sweep_dir: Annotated[Path, typer.Argument(help="The folder that `run` made.")],
    trials: Trials = None,
    time_budget: TimeBudget = "",
    gpu_hours: GpuHours = None,
    concurrency: Concurrency = None,
    tracking_uri: Tracking = "",
    storage: Annotated[str, typer.Option(envvar="GANSWEEP_STORAGE", help="Optuna database URL.")] = "",
    quiet: Quiet = False,
) -> None:
    """Go on with an interrupted sweep; trials and budgets may grow."""
    from pipeline import sweep

    changes: dict[str, Any] = {"trials": trials, "gpu_hours": gpu_hours, "concurrency": concurrency}
    if time_budget:
        changes["time_budget_sec"] = seconds(time_budget)
    outcome = sweep.resume(
        sweep_dir,
        {key: value for key, value in changes.items() if value is not None},
        tracking_uri=tracking_uri,
        storage=storage,
        live=live(quiet),
        say=sayer(quiet),
    )
    conclude(outcome)


def report(sweep_dir: Annotated[Path, typer.Argument(help="The folder of a sweep.")]) -> None:
    """Print the leaderboard of a sweep, running or finished, and write its report.html."""
    from pipeline import report as reports
    from pipeline.files import read_json

    summary = read_json(SweepPaths(sweep_dir).summary)
    if not summary:
        raise SweepError(
            "a sweep's folder holds a summary.json",
            seen=str(sweep_dir),
            fix="name the folder that `run` made",
        )
    leaderboard(summary)
    out_console.print(f"report: {reports.build(sweep_dir)}")


def validate(
    files: Annotated[list[str], typer.Argument(help="Spaces (.toml) and cluster files (.yaml).")],
) -> None:
    """Check spaces and cluster files, offline."""
    from pipeline import jobs, spaces

    for file in files:
        if Path(file).suffix in (".yaml", ".yml"):
            notes = jobs.check(Path(file))
        else:
            space = spaces.load(file)
            notes = [f"{len(space.search)} searched, {len(space.enqueue)} enqueued, hash {space.hash}"]
        out_console.print("\n  ".join([f"{file}: ok", *notes]), markup=False)


def doctor(
    out: Annotated[Path, typer.Option(help="Where sweeps would live.")] = Path("runs"),
    tracking_uri: Tracking = "",
    address: Annotated[str, typer.Option(help="Also look into this Ray cluster.")] = "",
) -> None:
    """Look at what this machine (and a cluster) has for a sweep."""
    from pipeline import doctor as doctors

    findings = doctors.diagnose(out, tracking_uri or None, address or None)
    table = Table(box=None, show_header=False, padding=(0, 2))
    colours = {"ok": "green", "warn": "yellow", "bad": "red"}
    for finding in findings:
        table.add_row(f"[{colours[finding.level]}]{finding.level}[/]", finding.name, escape(finding.text))
    out_console.print(table)
    if doctors.worst(findings) == "bad":
        raise typer.Exit(1)
