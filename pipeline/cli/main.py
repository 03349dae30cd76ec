"""The command line: arguments in, one call each, words and an exit code out.

Owns: the command `gansweep` and its exit codes (0 done, 1 failed, 2 the user's mistake, 130 interrupted);
searching, watching, keeping, clusters, using: the commands; arguments, asking: what they take; terminal: what
they print. Refuses: everything else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from pipeline.cli import cluster, inspect, manage, model, run
from pipeline.cli.terminal import err_console, fail, log_to_terminal
from pipeline.errors import UserError

app = typer.Typer(
    name="gansweep",
    help="Search hyper-parameters of GANs on your images; register the best generator in MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_COMMANDS: tuple[Callable[..., None], ...] = (
    *(run.run, run.resume, run.report, run.validate, run.doctor),
    *(inspect.watch, inspect.explain),
    *(manage.rm, manage.sync, manage.rerun),
    *(model.register, model.evaluate, model.sample, model.interpolate, model.export, model.serve),
)
for _command in _COMMANDS:
    app.command()(_command)
app.command(context_settings=cluster.SUBMIT, options_metavar="[OPTIONS] [OPTIONS OF run]")(cluster.submit)
for _command in (cluster.status, cluster.stop):
    app.command()(_command)


def main() -> NoReturn:
    """Read the command line and do what it asks; ends in SystemExit."""
    log_to_terminal()
    try:
        sys.exit(app(standalone_mode=False))  # a command that raised typer.Exit returns its code here
    except UserError as error:
        fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own errors: an unknown flag, a value of another type
            fail(error.format_message())
        if os.environ.get("GANSWEEP_TRACEBACK"):
            raise
        err_console.print(f"failed: {type(error).__name__}: {error}", style="red", markup=False)
        err_console.print("set GANSWEEP_TRACEBACK=1 to see where", markup=False)
        sys.exit(1)
