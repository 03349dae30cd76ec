"""The commands that manage sweeps: rm, sync, rerun."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import SweepDir, Tracking
from pipeline.cli.terminal import out_console
from pipeline.errors import SweepError
from pipeline.reporting.log_lines import err_console

if TYPE_CHECKING:
    from pipeline.sweep.rerun import RerunResult, RerunRow

Folder = Annotated[str, typer.Argument(help="The folder that `run` made.")]


def rm(
    sweep_dir: Folder,
    keep_best: Annotated[
        bool, typer.Option("--keep-best", help="Keep summary, report, records and best generators.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and stop.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask for confirmation on a terminal.")
    ] = False,
) -> None:
    """Delete a sweep, or all but its result.

    --keep-best deletes only what the result does not need. MLflow runs and registered models stay, and so do
    files in the folder that gansweep did not write.
    """
    from pipeline.storage.readable import readable_bytes
    from pipeline.sweep.cleanup import plan_removal, remove_sweep

    folder = _local_folder(sweep_dir, "delete it with your store's own tool, and drop its study")
    plan = plan_removal(folder, keep_best=keep_best)
    what = "checkpoints, sample grids and reruns" if keep_best else "everything"
    lost = f"; {plan.unfinished} unfinished begin anew" if plan.unfinished and keep_best else ""
    text = f"{sweep_dir}: {what} of {plan.trials} trials, {readable_bytes(plan.bytes)}{lost}"
    err_console.print(text, markup=False)
    if dry_run:
        return
    if sys.stdin.isatty() and not yes:
        typer.confirm("delete?", abort=True)
    done = remove_sweep(folder, keep_best=keep_best)
    out_console.print(f"deleted {readable_bytes(done.bytes)}", markup=False)
    if done.other_files:
        names = ", ".join(done.other_files)
        out_console.print(f"not written by gansweep, so still there: {names}", markup=False)


def sync(sweep_dir: Folder, tracking_uri: Tracking = "") -> None:
    """Send MLflow what it missed of a sweep.

    That is what was recorded while it did not answer; each record once, in order.
    """
    from pipeline.sweep.cleanup import sync_mlflow

    folder = _local_folder(sweep_dir, f"gansweep resume {sweep_dir} sends it")
    sent = sync_mlflow(folder, tracking_uri)
    parts = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(sent.items())]
    out_console.print(f"sent {', '.join(parts) or 'nothing'}: MLflow has everything", markup=False)


def rerun(
    sweep_dir: SweepDir,
    trial: Annotated[int, typer.Argument(min=0, help="The trial's number.")],
    kimg: Annotated[int, typer.Option(min=0, help="How far (as far as the trial came).")] = 0,
    seeds: Annotated[int, typer.Option(min=0, max=100, help="Also train it with so many other seeds.")] = 0,
) -> None:
    """Train one trial again and compare its records.

    In this process, without Ray: breakpoints and `python -m pdb -m pipeline rerun ...` work. Exit code 1
    where a record differs.
    """
    from pipeline.storage.readonly_copy import readonly_copy
    from pipeline.sweep.rerun import rerun_trial

    with readonly_copy(sweep_dir) as root:
        runs = rerun_trial(root, trial, kimg=kimg, seeds=seeds, on_row=_print_row)
    for run in runs:
        out_console.print(_conclusion(trial, run), markup=False)
    if any(run.agreed < run.compared for run in runs):
        raise typer.Exit(1)


def _local_folder(sweep: str, fix: str) -> Path:
    """The sweep's folder; an object store's address is an error, with `fix` saying what to do instead."""
    from pipeline.storage.url import is_url

    if is_url(sweep):
        raise SweepError("{seen} is not a folder", rule="rm and sync take a folder", seen=sweep, fix=fix)
    return Path(sweep)


def _print_row(index: int, row: RerunRow) -> None:
    record, stored = row.record, row.stored
    if stored is None:
        word = "not stored"
    elif row.differs:
        pairs = [f"{name} {_short(new)} (stored {_short(old)})" for name, (new, old) in row.differs.items()]
        word = "differs: " + ", ".join(pairs)
    else:
        word = "agrees"
    mark = f"seed {index}  " if index else ""
    out_console.print(f"{mark}{record.kimg:>7} kimg  fid {_short(record.fid):<9}  {word}", markup=False)


def _conclusion(trial: int, run: RerunResult) -> str:
    name = f"trial {trial}" + (f", other seed {run.index}" if run.index else "")
    text = "nothing is stored to compare with"
    if run.compared:
        text = f"{run.agreed} of {run.compared} stored records agree"
    return f"{name}: {text}; best fid {_short(run.best_fid)} in {len(run.rows)} ticks ({run.folder})"


def _short(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "-" if value is None else str(value)
