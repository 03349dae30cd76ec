"""The process of the `gansweep` command: its start and its exit."""

from __future__ import annotations

import atexit
import codecs
import os
import sys

_UNWRITTEN = 120  # Python's exit code if standard output cannot be flushed


def command() -> None:
    """The entry point of `gansweep` and of `python -m pipeline`."""
    _leave_ascii()
    _ignore_empty_sizes()
    exit_ = _Exit()  # before anything else is imported: what is registered first is called last
    from pipeline.reporting.streams import make_streams_last

    make_streams_last()
    from pipeline.cli.main import main

    try:
        main()
    except SystemExit as error:
        exit_.code = error.code if isinstance(error.code, int) else int(error.code is not None)
        exit_.code = exit_.code or _code_of_output()
        sys.exit(exit_.code)


def _leave_ascii() -> None:
    """Start this Python again in UTF-8 where its locale is ASCII, in which it could name no other file."""
    if codecs.lookup(sys.getfilesystemencoding()).name == "ascii" and "utf8" not in sys._xoptions:
        os.environ["PYTHONUTF8"] = "1"  # in Ray's workers too
        os.environ.setdefault("PYTHONIOENCODING", "ascii:backslashreplace")  # as the terminal wants it
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _ignore_empty_sizes() -> None:
    """A terminal without columns is one of unknown size: rich would print nothing."""
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        if not os.environ.get(name, "").strip("0"):
            os.environ.pop(name, None)


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
