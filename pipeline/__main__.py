"""The process of the `gansweep` command: its start and its exit."""

from __future__ import annotations

import atexit
import os
import sys

_UNWRITTEN = 120  # Python's exit code if standard output cannot be flushed


def command() -> None:
    """The entry point of `gansweep` and of `python -m pipeline`."""
    exit_ = _Exit()  # before anything else is imported: what is registered first is called last
    from pipeline.cli.main import main

    try:
        main()
    except SystemExit as error:
        exit_.code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise


class _Exit:
    """Ends the process after Python's atexit handlers, and before C++ destroys what threads still use.

    Ray leaves a thread behind that collects statistics (ray-project/ray#13565). If it wakes while C++ exits,
    the process dies of a segmentation fault, and the exit code that job systems rely on is lost.
    """

    def __init__(self) -> None:
        self.code = 1  # an uncaught exception
        atexit.register(self._exit_process)

    def _exit_process(self) -> None:
        if "ray" not in sys.modules:
            return
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (BrokenPipeError, ValueError):  # the reader has gone
                pass
            except OSError:
                self.code = self.code or _UNWRITTEN
        os._exit(self.code)


if __name__ == "__main__":
    command()
