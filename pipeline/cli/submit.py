"""Reads and checks the arguments of `submit`, which are those of `run`, before a job is sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.main import get_command

from pipeline.cli import run
from pipeline.cli.request import build_request, has_password
from pipeline.cluster.jobs.packaging import JobPackage, pack_job
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.sweep.request import Request

_SECRETS = (
    ("storage", "--storage", "PGUSER and PGPASSWORD, or GANSWEEP_STORAGE with the whole URL,"),
    ("tracking_uri", "--tracking-uri", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
)


def package_job(arguments: Sequence[str], folder: Path | None = None) -> tuple[JobPackage, Request]:
    """The job for these arguments of `run`, and the request that they mean.

    Args:
        arguments: the command line after `submit`.
        folder: the folder that is sent along; None = the current one.

    Raises:
        UserError: an argument is wrong, or names something that only this machine has.
    """
    from pipeline.search.space.builtin import builtin_spaces, find_space

    given = _parse(arguments)
    for name, flag, variables in _SECRETS:
        if has_password(given[name]):
            raise ConfigError(
                f"there is a password in {flag} or its environment variable",
                rule="passwords are not sent with a job",
                fix=f"give the address without it, and {variables} to the shell that starts Ray on the head",
            )
    if any(part.split("=")[0] == "--notify" for part in arguments):
        raise ConfigError(
            "--notify is given",
            rule="an address to notify is not sent with a job, whose command Ray shows and stores",
            fix="export GANSWEEP_NOTIFY in the shell that starts Ray on the head",
        )
    request = build_request({**given, "address": "auto"})
    space = find_space(given["space"])
    return pack_job(
        _forwarded(arguments, given),
        folder=folder or Path.cwd(),
        space=space,
        builtin=space in builtin_spaces().values(),
        data=given["data"],
        out=request.out,
        tracking_uri=given["tracking_uri"],
        typed_tracking=any(part.split("=")[0] == "--tracking-uri" for part in arguments),
        storage=given["storage"],
        weights=given["extractor_weights"],
    ), request


def _parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The parameters of `run` by name, as its own command reads them."""
    app = typer.Typer(add_completion=False)
    app.command()(run.run)
    return dict(get_command(app).make_context("run", list(arguments)).params)


def _forwarded(arguments: Sequence[str], given: dict[str, Any]) -> list[str]:
    """The arguments with --storage from this machine's environment, which has no password by now."""
    stored = any(part.split("=")[0] == "--storage" for part in arguments)
    return [*arguments, *(["--storage", given["storage"]] if given["storage"] and not stored else [])]
