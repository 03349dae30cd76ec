"""Reads and checks the arguments of `submit`, which are those of `run`, before a job is sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from typer.main import get_command

from pipeline.cli import run
from pipeline.cli.options import options_from
from pipeline.cluster.jobs.packaging import JobPackage, check_visible, pack_job
from pipeline.config import names_file
from pipeline.errors import ConfigError
from pipeline.sweep.options import RunOptions

if TYPE_CHECKING:
    from pipeline.sweep.request import Request

_SECRETS = (
    ("storage", "--storage", "PGUSER and PGPASSWORD, or GANSWEEP_STORAGE with the whole URL,"),
    ("tracking_uri", "--tracking-uri", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
)


def package_job(arguments: Sequence[str], folder: Path | None = None) -> tuple[JobPackage, Request]:
    """The job for these arguments of `run`, and the request that they mean.

    folder: is sent along; None = the current one.

    Raises:
        UserError: an argument is wrong, or names something that only this machine has.
    """
    from pipeline.search.space.builtin import builtin_spaces, find_space
    from pipeline.sweep.build_request import build_request
    from pipeline.sweep.option_texts import has_password

    options = _parse(arguments)
    for name, flag, variables in _SECRETS:
        if has_password(getattr(options, name)):
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
    request = build_request(dataclasses.replace(options, address="auto"))
    stores = options.tracking_uri, options.storage
    out = request.out if request.store else Path(options.out)
    classes = options.classes if names_file(options.classes) else ""
    check_visible(options.data, out, *stores, classes=classes, weights=options.extractor_weights)
    space = find_space(str(options.space)) if options.space else None
    own_space = None if space in builtin_spaces().values() else space
    return pack_job(_forwarded(arguments, *stores), folder or Path.cwd(), own_space), request


def _parse(arguments: Sequence[str]) -> RunOptions:
    """The options of `run`, as its own command reads them."""
    app = typer.Typer(add_completion=False)
    app.command()(run.run)
    return options_from(get_command(app).make_context("run", list(arguments)).params, RunOptions)


def _forwarded(arguments: Sequence[str], tracking_uri: str, storage: str) -> list[str]:
    """The arguments with the stores that this machine's environment names; they hold no password by now."""
    typed = {part.split("=")[0] for part in arguments}
    stores = {"--storage": storage, "--tracking-uri": tracking_uri}
    added = [(flag, value) for flag, value in stores.items() if value and flag not in typed]
    return [*arguments, *(part for pair in added for part in pair)]
