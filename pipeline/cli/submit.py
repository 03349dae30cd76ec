"""What `submit` was asked: the arguments of `run`, checked here before they travel.

Owns: reading them with `run`'s own command. Refuses: sending them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.main import get_command

from pipeline.cli import run
from pipeline.cli.request import has_secret, request_of
from pipeline.cluster.jobs.packaging import JobPackage, pack_job
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.sweep.request import Request

_SECRETS = (
    ("storage", "--storage", "PGUSER and PGPASSWORD, or GANSWEEP_STORAGE with the whole URL,"),
    ("tracking_uri", "--tracking-uri", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
)


def package_of(typed: Sequence[str], folder: Path | None = None) -> tuple[JobPackage, Request]:
    """The job that these arguments of `run` make, and the request that they mean.

    Raises:
        UserError: one of them is wrong, or lies on this machine alone.
    """
    from pipeline.search.space.builtin import builtin_spaces, find_space

    given = _read(typed)
    for name, flag, variables in _SECRETS:
        if has_secret(given[name]):
            raise ConfigError(
                "no password travels with a job",
                seen=f"one in {flag} or its variable",
                fix=f"give the address without it, and {variables} to the shell that starts Ray on the head",
            )
    if any(part.split("=")[0] == "--notify" for part in typed):
        raise ConfigError(
            "no address to notify travels with a job, whose command Ray shows and keeps",
            seen="--notify",
            fix="export GANSWEEP_NOTIFY in the shell that starts Ray on the head",
        )
    request = request_of({**given, "address": "auto"})
    space = find_space(given["space"])
    return pack_job(
        _forwarded(typed, given),
        folder=folder or Path.cwd(),
        space=space,
        shipped=space in builtin_spaces().values(),
        data=given["data"],
        out=request.out,
        tracking_uri=given["tracking_uri"],
        typed_tracking=any(part.split("=")[0] == "--tracking-uri" for part in typed),
        storage=given["storage"],
        weights=given["extractor_weights"],
    ), request


def _read(typed: Sequence[str]) -> dict[str, Any]:
    """The parameters of `run` by name, as its own command reads them."""
    app = typer.Typer(add_completion=False)
    app.command()(run.run)
    return dict(get_command(app).make_context("run", list(typed)).params)


def _forwarded(typed: Sequence[str], given: dict[str, Any]) -> list[str]:
    """The arguments with --storage from this machine's environment; it holds no password."""
    stored = any(part.split("=")[0] == "--storage" for part in typed)
    return [*typed, *(["--storage", given["storage"]] if given["storage"] and not stored else [])]
