"""The log of this package as plain lines on stderr, for the command and for Python's door."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler

from pipeline.reporting.streams import lasting_stderr

# Plain text in a notebook too, whose own output would fold the lines.
err_console = Console(file=lasting_stderr(), soft_wrap=True, highlight=False, force_jupyter=False)


class _LineHandler(RichHandler):
    """One line a message on stderr, never folded: INFO dim, WARNING and above after `warning: `."""

    def emit(self, record: logging.LogRecord) -> None:
        warns = record.levelno >= logging.WARNING
        text = ("warning: " if warns else "") + self.format(record)
        self.console.print(text, style=None if warns else "dim", markup=False)


def log_to_terminal(*, quiet: bool = False) -> None:
    """Print the log lines of this package on stderr; with `quiet` only warnings and errors."""
    logger = logging.getLogger("pipeline")
    if not any(isinstance(handler, _LineHandler) for handler in logger.handlers):
        logger.addHandler(_LineHandler(console=err_console))
        logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


def wants_live_view(quiet: bool) -> bool:
    """Whether the live view is drawn: on a terminal, unless `quiet`."""
    return not quiet and err_console.is_terminal
