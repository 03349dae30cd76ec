"""The commands that look at a sweep: watch, explain."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import SweepDir
from pipeline.cli.terminal import out_console
from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import SweepError
from pipeline.reporting.log_lines import err_console
from pipeline.storage.files import write_text


def watch(
    sweep_dir: SweepDir,
    once: Annotated[bool, typer.Option("--once", help="Show its present state, and leave.")] = False,
) -> None:
    """Watch a sweep from another terminal or machine.

    Ends when the sweep ends. Reads the sweep's files only, so it can be started and left (Ctrl+C) at any
    time. Where the output is no terminal, a line is printed every 15 seconds. Exit code 1 if the sweep failed
    or its process is gone.
    """
    from pipeline.reporting.live.view import DEAD, follow_sweep
    from pipeline.storage.readonly_copy import watched_copy

    with watched_copy(sweep_dir) as root:
        state = follow_sweep(SweepPaths(root), once=once, console=out_console)
    if state == DEAD:
        again = shlex.quote(sweep_dir)
        err_console.print(f"its process is gone; go on with: gansweep resume {again}", markup=False)
    if state in (DEAD, "failed"):
        raise typer.Exit(1)


def explain(
    sweep_dir: SweepDir,
    trial: Annotated[int | None, typer.Argument(help="A trial's number: why it lost, or won.")] = None,
    next_: Annotated[
        Path | None,
        typer.Option("--next", metavar="FILE.toml", help="Write the space to search next: the best region."),
    ] = None,
) -> None:
    """Explain what won, why trials lost, what to search next.

    Works on a running sweep too. With --next the region of the best trials becomes a new space, with a bound
    moved outwards where the best trials lie near it; the three best are tried first.
    """
    from pipeline.reporting.explain.narrative import explain_sweep, explain_trial, next_file
    from pipeline.reporting.history import read_history
    from pipeline.storage.readonly_copy import readonly_copy

    if next_ and next_.exists():
        new = "--next writes a new file"
        raise SweepError("{seen} exists", rule=new, seen=str(next_), fix="name another")
    if next_ and not next_.parent.is_dir():
        folder = str(next_.parent)
        raise SweepError("{seen} is not a folder", seen=folder, fix="name a file in one that exists")
    with readonly_copy(sweep_dir) as root:
        history = read_history(root)
    if trial is None:
        sections = explain_sweep(history)
    else:
        found = history.find(trial)
        if found is None:
            numbers = sorted(one.number for one in history.trials)
            known = f"0 to {numbers[-1]}" if numbers else "none yet"
            raise SweepError("there is no trial {seen}", seen=trial, fix=f"this sweep has {known}")
        sections = explain_trial(history, found)
    text = next_file(history) if next_ else ""
    for heading, lines in sections:
        out_console.print(f"[bold]{heading}[/]")
        for line in lines:
            out_console.print(f"  - {line}", markup=False)
    if next_:
        write_text(next_, text)
        data = history.stored.get("sweep", {}).get("data", SweepConfig().data)
        command = shlex.join(["gansweep", "run", "--space", str(next_), "--data", data])
        out_console.print(f"next: {command}", markup=False)
