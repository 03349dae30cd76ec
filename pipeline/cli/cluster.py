"""The commands for a Ray cluster: submit, status, stop."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from pipeline.cli.terminal import out_console, print_rows
from pipeline.cluster.jobs.head import DEFAULT_ADDRESS, check_head, dashboard_address
from pipeline.config import SweepPaths
from pipeline.reporting.log_lines import err_console

Address = Annotated[
    str,
    typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="The dashboard of the cluster (ray dashboard FILE)."),
]
Job = Annotated[str, typer.Argument(help="The id that submit printed.")]

SUBMIT: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "options_metavar": "[OPTIONS] [OPTIONS OF run]",
}


def submit(
    context: typer.Context,
    address: Address = DEFAULT_ADDRESS,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print the job's id and do not follow its log.")
    ] = False,
) -> None:
    """Run a sweep as a Ray job on a cluster.

    Takes all options of `gansweep run`. The current folder is sent along (without what .gitignore and
    .rayignore name). --out, --data folder: and npz: are paths that all nodes of the cluster see. The same
    submit again resumes the sweep. Its log is followed; on a terminal the live view is shown below it if
    this machine sees --out as well.
    Passwords (PGUSER, PGPASSWORD, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD) are taken from the
    environment in which the head was started.
    """
    from pipeline.cli.submit import package_job
    from pipeline.cluster.jobs.client import submit_job

    dashboard = dashboard_address(address)
    package, request = package_job(context.args)
    check_head(dashboard, request.config)
    job = submit_job(dashboard, package, request.config.name)
    out_console.print(job, markup=False)
    if no_wait:
        return
    sys.exit(_follow(dashboard, job, live_view(request.paths)))


@contextlib.contextmanager
def live_view(paths: SweepPaths) -> Iterator[None]:
    """Show a sweep's live view below the lines written meanwhile, if on a terminal that sees its folder."""
    from pipeline.reporting.live.view import LiveView

    if not sys.stderr.isatty() or not paths.root.parent.is_dir():
        yield
        return
    with LiveView(paths, live=True):
        yield


def _follow(address: str, job: str, view: AbstractContextManager[None] | None = None) -> int:
    """Write a job's log to stderr until the job ends; returns its exit code."""
    from pipeline.cluster.jobs.client import follow_job

    try:
        with view or contextlib.nullcontext():
            code = follow_job(address, job, lambda text: print(text, end="", file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        err_console.print(f"\nthe job goes on: gansweep status {job}; gansweep stop {job}", markup=False)
        return 130
    err_console.print(f"job {job} is over (exit code {code})", markup=False)
    if code == 127:
        err_console.print("the cluster has no `gansweep` on its PATH: install it there", markup=False)
    return code


def status(
    job: Annotated[str, typer.Argument(help="The id that submit printed (all jobs).")] = "",
    address: Address = DEFAULT_ADDRESS,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Write its log until it is over.")] = False,
) -> None:
    """Show the state of a job, or list all jobs on a cluster."""
    from pipeline.cluster.jobs.client import describe_job, list_jobs

    dashboard = dashboard_address(address)
    rows = list(describe_job(dashboard, job).items() if job else list_jobs(dashboard))
    print_rows(rows)
    if not rows:
        out_console.print("no jobs yet: gansweep submit starts one")
    if job and follow:
        sys.exit(_follow(dashboard, job))


def stop(job: Job, address: Address = DEFAULT_ADDRESS) -> None:
    """End a job; the same submit resumes the sweep.

    Its trials checkpoint at their next step.
    """
    from pipeline.cluster.jobs.client import ENDED_STATES, stop_job

    state = stop_job(dashboard_address(address), job)
    out_console.print(f"{job}: {state.lower()}", markup=False)
    if state not in ENDED_STATES:
        raise typer.Exit(1)
