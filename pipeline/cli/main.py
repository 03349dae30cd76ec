"""The command `gansweep`: reads the command line and runs one command.

Exit codes: 0 done, 1 failed, 2 the input is wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn

import typer

from pipeline import __version__
from pipeline.cli import cluster, data, init, inspect, manage, model, run
from pipeline.cli.help import Command, CommandGroup, epilog_of, example_of, panel_of
from pipeline.errors import UserError
from pipeline.reporting.log_lines import err_console, log_to_terminal
from pipeline.storage.process_environment import check_current_folder, settle_environment
from pipeline.tracking.mlflow_environment import own_mlflow_runs

app = typer.Typer(
    cls=CommandGroup,
    name="gansweep",
    epilog=epilog_of(""),
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_COMMANDS: Mapping[str, Callable[..., None]] = {
    "data": data.data,
    "init": init.init,
    "run": run.run,
    "doctor": run.doctor,
    "resume": run.resume,
    "validate": run.validate,
    "rerun": manage.rerun,
    "report": run.report,
    "watch": inspect.watch,
    "explain": inspect.explain,
    "sample": model.sample,
    "interpolate": model.interpolate,
    "evaluate": model.evaluate,
    "register": model.register,
    "export": model.export,
    "serve": model.serve,
    "submit": cluster.submit,
    "status": cluster.status,
    "stop": cluster.stop,
    "sync": manage.sync,
    "rm": manage.rm,
}
for _name, _command in _COMMANDS.items():
    app.command(
        _name,
        cls=Command,
        rich_help_panel=panel_of(_name),
        epilog=epilog_of(_name),
        **(cluster.SUBMIT if _name == "submit" else {}),
    )(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gansweep {__version__}")
        raise typer.Exit


@app.callback()
def gansweep(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Search hyper-parameters of GANs on your images; register the best."""


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
    """What the parser did not accept, and the nearest option or an example of the command."""
    command = error.ctx.info_name if error.ctx and error.ctx.info_name in _COMMANDS else ""
    if hasattr(error, "possibilities"):
        if error.possibilities:
            return f"no option {error.option_name}; did you mean '{error.possibilities[0]}'?"
        return f"no option {error.option_name}; {f'gansweep {command}'.strip()} --help lists all"
    message = str(error.format_message()).partition(", unable to parse")[0].strip().rstrip(".")
    return f"{message[:1].lower()}{message[1:]}; for example: {example_of(command)}"
