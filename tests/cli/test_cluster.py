"""The live view beneath the log of a job."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_folders import write_running_sweep

LOG_A_LINE = """
import sys, time
from pathlib import Path
from pipeline.cli.cluster import live_view
from pipeline.config import SweepPaths
with live_view(SweepPaths(Path(sys.argv[1]))):
    time.sleep(1.5)
    sys.stderr.write("a line of the job's log\\n")
    time.sleep(1.2)
"""


@pytest.mark.parametrize("terminal", [True, False])
def test_a_jobs_log_has_the_live_view_beneath_it_on_a_terminal_only(tmp_path: Path, terminal: bool) -> None:
    sweep = write_running_sweep(tmp_path / "digits")
    ours, theirs = pty.openpty() if terminal else os.pipe()
    command = [sys.executable, "-c", LOG_A_LINE, str(sweep.root)]
    repository = Path(__file__).parents[2]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, cwd=repository, stderr=theirs, env=environment) as process:
        os.close(theirs)
        output = b""
        with contextlib.suppress(OSError):  # a terminal whose other end is closed
            while chunk := os.read(ours, 65_536):
                output += chunk
    os.close(ours)
    assert process.returncode == 0
    assert output.count(b"a line of the job's log") == 1
    assert (b"digits: running" in output) is terminal
