"""The end of the `gansweep` process: its exit code holds, whatever other threads do."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import command

_COMMAND = """
import atexit, ctypes, sys, types
from pipeline import __main__
from pipeline.cli import main as cli

def main():
    atexit.register(print, "atexit")
    libc = ctypes.CDLL(None)
    libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)
    print("done")
    exec(sys.argv[2])

cli.main = main
if sys.argv[1] == "ray":
    sys.modules["ray"] = types.ModuleType("ray")
__main__.command()
"""


@pytest.mark.parametrize(
    ("loaded", "end", "code"),
    [
        ("ray", "sys.exit(3)", 3),
        ("ray", "sys.exit()", 0),
        ("ray", "sys.exit('why')", 1),
        ("ray", "raise ValueError", 1),
        ("none", "sys.exit(3)", -signal.SIGABRT),
    ],
)
def test_the_exit_code_survives_a_crash_at_the_end_of_the_process(loaded: str, end: str, code: int) -> None:
    """A thread of Ray sometimes crashes there; here the C library aborts."""
    command_line = [sys.executable, "-c", _COMMAND, loaded, end]
    ended = subprocess.run(command_line, capture_output=True, text=True, timeout=60)
    assert ended.returncode == code
    assert ended.stdout.split() == ["done", "atexit"]


def test_output_that_cannot_be_written_is_a_failure() -> None:
    with Path("/dev/full").open("w") as full:
        command_line = [sys.executable, "-c", _COMMAND, "ray", "sys.exit(0)"]
        buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
        ended = subprocess.run(command_line, stdout=full, stderr=subprocess.DEVNULL, env=buffered, timeout=60)
    assert ended.returncode == 120


def test_the_installed_command_is_this_one() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="gansweep")
    assert script.load() is command
    assert script.value == "gansweep.__main__:command"
