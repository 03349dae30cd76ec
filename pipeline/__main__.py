"""The process of the `gansweep` command: its start and its exit."""

from __future__ import annotations

import atexit
import codecs
import os
import sys
import warnings

_UNWRITTEN = 120  # Python's exit code if standard output cannot be flushed


def command() -> None:
    """The entry point of `gansweep` and of `python -m pipeline`."""
    _start_again_if_crippled()
    _ignore_empty_sizes()
    exit_ = _Exit()  # before anything else is imported: what is registered first is called last
    from pipeline.reporting.streams import make_streams_last

    make_streams_last()
    _never_raise_warnings()
    from pipeline.reporting.log_lines import log_to_terminal

    log_to_terminal()
    from pipeline.cli.main import main

    try:
        main()
    except SystemExit as error:
        exit_.code = error.code if isinstance(error.code, int) else int(error.code is not None)
        exit_.code = exit_.code or _code_of_output()
        if exit_.code:
            sys.exit(exit_.code)
        raise


def _start_again_if_crippled() -> None:
    """Start this Python again in a mode in which libraries work.

    In an ASCII locale it could name no other file: it goes on in UTF-8. Without docstrings (PYTHONOPTIMIZE=2)
    torch and MLflow cannot be imported: it keeps them.
    """
    ascii_only = codecs.lookup(sys.getfilesystemencoding()).name == "ascii" and "utf8" not in sys._xoptions
    bare = sys.flags.optimize > 1 and os.environ.get("PYTHONOPTIMIZE", "1") != "1"
    if ascii_only:
        os.environ["PYTHONUTF8"] = "1"  # in Ray's workers too
        os.environ.setdefault("PYTHONIOENCODING", "ascii:backslashreplace")  # as the terminal wants it
    if bare:
        os.environ["PYTHONOPTIMIZE"] = "1"
    if ascii_only or bare:
        utf8 = ["-X", "utf8"] if ascii_only else []
        os.execv(sys.executable, [sys.executable, *utf8, *sys.orig_argv[1:]])


def _ignore_empty_sizes() -> None:
    """A terminal without columns is one of unknown size: rich would print nothing."""
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        if not os.environ.get(name, "").strip("0"):
            os.environ.pop(name, None)


def _never_raise_warnings() -> None:
    """Let no warning be an error, as PYTHONWARNINGS=error asks: half the libraries could not be imported."""
    if any(action == "error" for action, *_ in warnings.filters):
        os.environ.pop("PYTHONWARNINGS", None)
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)  # Python's own filters


def _code_of_output() -> int:
    """The exit code where results could not be written to stdout, said on stderr; 0 = they were."""
    from pipeline.reporting.streams import unwritten

    error = unwritten()
    if error is None:
        return 0
    print(f"failed: stdout cannot be written: {error.strerror}", file=sys.stderr)
    return _UNWRITTEN


class _Exit:
    """Ends the process after Python's atexit handlers, and before C++ destroys what threads still use.

    Ray leaves a thread behind that collects statistics (ray-project/ray#13565). If it wakes while C++ exits,
    the process dies of a segmentation fault, and the exit code that job systems rely on is lost.
    """

    def __init__(self) -> None:
        self.code = 1  # an uncaught exception
        atexit.register(self._exit_process)

    def _exit_process(self) -> None:
        if "ray" in sys.modules:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.code)


if __name__ == "__main__":
    command()
