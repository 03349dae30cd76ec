"""The commands that look at a sweep: watch, explain.

Owns: their flags. Refuses: everything but one call each.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import SweepDir
from pipeline.cli.terminal import err_console, out_console
from pipeline.config import SweepPaths
from pipeline.errors import SweepError
from pipeline.storage.files import write_text


def watch(
    sweep_dir: SweepDir,
    once: Annotated[bool, typer.Option("--once", help="Show how it stands now, and leave.")] = False,
) -> None:
    """Watch a sweep from another terminal or machine; ends when the sweep ends.

    Reads the sweep's files only, so it can be started and left (Ctrl+C) at any time. Where the output is no
    terminal, a line is printed every 15 seconds. Exit code 1 if the sweep failed or its process is gone.
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
    """Say in plain words what won and by how much, why trials lost, and what to search next.

    Of a running sweep too. With --next the region of the best trials becomes a space of its own, with bounds
    moved outwards where the best trials lean on one; the three best are tried first.
    """
    from pipeline.reporting import history
    from pipeline.reporting.explain import narrative as explaining
    from pipeline.storage.readonly_copy import readonly_copy

    if next_ is not None and (next_.exists() or not next_.parent.is_dir()):
        raise SweepError("--next writes a new file", seen=str(next_), fix="name one that is not there")
    with readonly_copy(sweep_dir) as root:
        told = history.read_history(root)
    if trial is None:
        sections = explaining.explain_sweep(told)
    else:
        found = told.find(trial)
        if found is None:
            numbers = sorted(one.number for one in told.trials)
            last = f"0 to {numbers[-1]}" if numbers else "none yet"
            raise SweepError("a trial of this sweep is named", seen=trial, fix=f"its trials are {last}")
        sections = explaining.explain_trial(told, found)
    text = explaining.next_file(told) if next_ is not None else ""
    for heading, lines in sections:
        out_console.print(f"[bold]{heading}[/]")
        for line in lines:
            out_console.print(f"  - {line}", markup=False)
    if next_ is not None:
        write_text(next_, text)
        out_console.print(f"next: gansweep run --space {next_}", markup=False)
