"""The command `gansweep`: reads the command line and runs one command.

Exit codes: 0 done, 1 failed, 2 the input is wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from pipeline.cli import cluster, data, inspect, manage, model, run
from pipeline.errors import ConfigError, UserError, nearest
from pipeline.reporting.log_lines import err_console, log_to_terminal
from pipeline.storage.process_environment import check_current_folder, settle_environment
from pipeline.tracking.mlflow_environment import own_mlflow_runs


class CommandGroup(TyperGroup):
    """The commands of `gansweep`; a mistyped one is answered with the nearest."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first of `args` names; ConfigError where there is none."""
        if args[0] not in self.commands:
            raise ConfigError("no command {seen}", seen=args[0], fix=nearest(args[0], self.commands))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=CommandGroup,
    name="gansweep",
    help="Search hyper-parameters of GANs on your images; register the best generator in MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_COMMANDS: tuple[Callable[..., None], ...] = (
    *(data.data, run.run, run.resume, run.report, run.validate, run.doctor),
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
    """Read the command line and do what it asks; without arguments print the help. Ends in SystemExit."""
    log_to_terminal()
    try:
        check_current_folder()
        settle_environment()
        with own_mlflow_runs():
            # A command that raised typer.Exit returns its code here.
            sys.exit(app(sys.argv[1:] or ["--help"], prog_name="gansweep", standalone_mode=False))
    except UserError as error:
        _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # the parser's own errors
            _fail(_parser_message(error))
        if os.environ.get("GANSWEEP_TRACEBACK"):
            raise
        err_console.print(f"failed: {type(error).__name__}: {error}", style="red", markup=False)
        err_console.print("set GANSWEEP_TRACEBACK=1 to see where", markup=False)
        sys.exit(1)


def _fail(message: str) -> NoReturn:
    """Print an error of the input as one line, and exit with code 2."""
    err_console.print("error: " + " ".join(message.split()), markup=False)
    sys.exit(2)


def _parser_message(error: Any) -> str:
    """What the parser did not accept; for an unknown option also the nearest one, or how to list them."""
    if not hasattr(error, "possibilities"):
        return str(error.format_message())
    if error.possibilities:
        return f"no option {error.option_name}; did you mean '{error.possibilities[0]}'?"
    known = {one.callback.__name__ for one in app.registered_commands if one.callback}
    command = f"{error.ctx.info_name} " if error.ctx and error.ctx.info_name in known else ""
    return f"no option {error.option_name}; gansweep {command}--help lists all"
