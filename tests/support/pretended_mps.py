"""A machine that has a script instead of NVIDIA's MPS daemon."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from pipeline.cluster import mps
from pipeline.search.space.parser import parse_space

# As NVIDIA's: -d leaves a daemon behind, other commands come by stdin, and fail where there is no daemon.
PROGRAM = """#!/bin/sh
visible=${CUDA_VISIBLE_DEVICES-unset} percent=${CUDA_MPS_ACTIVE_THREAD_PERCENTAGE-unset}
echo "$1 visible=$visible percent=$percent log=$CUDA_MPS_LOG_DIRECTORY" >> "$(dirname "$0")/called"
pipe=$CUDA_MPS_PIPE_DIRECTORY
if [ "$1" = -d ]; then
    [ -e "$(dirname "$0")/broken" ] && { echo "no device"; echo "more"; exit 1; }
    [ -e "$pipe/control" ] && { echo "already running"; exit 1; }
    sleep 300 & echo $! > "$pipe/pid"
    touch "$pipe/control"
    exit 0
fi
read -r command
echo "$command" >> "$(dirname "$0")/commands"
grep -q '^State:.[^Z]' "/proc/$(cat "$pipe/pid")/status" 2> /dev/null ||
    { echo "Cannot find MPS control daemon process"; exit 1; }
case "$command" in
    get_server_list) echo 77 ;;
    "get_client_list 77") cat "$pipe/clients" 2> /dev/null ;;
    quit) rm "$pipe/control"; kill "$(cat "$pipe/pid")" ;;
esac
exit 0
"""

GIB = 2**30
SPACE = parse_space(
    """
    [fixed]
    kimg = 20
    tick_kimg = 10
    width_g = 4
    width_d = 4
    z_dim = 8
    [search]
    batch_size = { choice = [16, 32] }
    """
)
"""What the trials of tests that share a GPU search."""


class Machine:
    """A machine that has the script on its PATH, and what the script was called with."""

    def __init__(self, root: Path) -> None:
        self.bin, self.temporary = root / "bin", root / "tmp"
        self.bin.mkdir()
        self.temporary.mkdir()
        self.daemon_folder = self.temporary / f"gansweep-mps-{os.getuid()}"
        program = self.bin / "nvidia-cuda-mps-control"
        program.write_text(PROGRAM)
        program.chmod(0o755)

    def _lines(self, name: str) -> list[str]:
        path = self.bin / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def started(self) -> list[str]:
        """One line for each daemon that was started."""
        return [line for line in self._lines("called") if line.startswith("-d")]

    @property
    def commands(self) -> list[str]:
        """What a daemon was told by stdin."""
        return self._lines("commands")

    def serve(self, folder: Path) -> None:
        """Start a daemon as another user would, with its pipes in `folder`."""
        folder.mkdir()
        subprocess.run(
            [self.bin / "nvidia-cuda-mps-control", "-d"],
            env={"PATH": os.environ["PATH"], mps.PIPE: str(folder), mps.LOG: str(folder)},
            check=True,
        )
        (self.bin / "called").unlink()

    def end(self) -> None:
        """End all daemons."""
        for pid in self.bin.parent.rglob("pid"):
            with contextlib.suppress(ValueError, ProcessLookupError):
                os.kill(int(pid.read_text()), 15)
