"""The process of the `gansweep` command.

Owns: its end. Refuses: what it does in between.
"""

from __future__ import annotations

import atexit
import os
import sys

_UNWRITTEN = 120  # Python's own code where standard output could not be written


def command() -> None:
    """The entry point of `gansweep` and of `python -m pipeline`."""
    end = _End()  # before anything else is imported: what is registered first is called last
    from pipeline.cli.main import main

    try:
        main()
    except SystemExit as asked:
        end.code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
        raise


class _End:
    """Ends the process after Python's own farewells, and before C++ takes apart what threads still use.

    Ray leaves a thread behind that counts statistics (ray-project/ray#13565). Should it wake while the
    process ends, that dies of a segmentation fault, and with it the exit code that job systems go by.
    """

    def __init__(self) -> None:
        self.code = 1  # an exception that nobody catches
        atexit.register(self._leave)

    def _leave(self) -> None:
        if "ray" not in sys.modules:
            return
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (BrokenPipeError, ValueError):  # nobody listens any more
                pass
            except OSError:
                self.code = self.code or _UNWRITTEN
        os._exit(self.code)


if __name__ == "__main__":
    command()
