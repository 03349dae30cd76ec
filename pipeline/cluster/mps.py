"""NVIDIA's Multi-Process Service: processes that share a GPU compute at the same time instead of in turns.

One daemon serves all processes of a user on a machine. CUDA connects to it when it is initialised in a
process, and never later: call `start` before that. A daemon that somebody else runs (at
`CUDA_MPS_PIPE_DIRECTORY`, or CUDA's default /tmp/nvidia-mps) is used as it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pipeline.cluster.socket_folder import mps_folder
from pipeline.storage.lock import NoLocksError, lock_file

PIPE, LOG = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
PERCENTAGE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
"""Environment variable: how much of a GPU's processors one process may use."""

_PROGRAM = "nvidia-cuda-mps-control"
_PROGRAM_FOLDERS = ("/usr/local/nvidia/bin", "/usr/bin")
"""Where the driver's programs lie if not on the PATH: containers have them mounted into the first."""
_DEFAULT = Path("/tmp/nvidia-mps")
"""Where CUDA looks for a daemon by default."""
_ANSWER_SEC = 10.0
_START_SEC = 30.0


def find_program() -> str | None:
    """The path of the daemon's program, or None."""
    return shutil.which(_PROGRAM) or shutil.which(_PROGRAM, path=os.pathsep.join(_PROGRAM_FOLDERS))


def state() -> Literal["runs", "found", "missing"]:
    """Whether on this machine a daemon runs that `start` would use, its program is found, or neither."""
    program, given = find_program(), os.environ.get(PIPE)
    folders = [Path(given)] if given else [_DEFAULT, mps_folder()]
    if any(_answers(program, folder) for folder in folders):
        return "runs"
    return "found" if program and not given else "missing"


def start() -> str:
    """Connect this process, and those that it starts, to an MPS daemon; start one where none runs.

    Returns an empty text, or the reason why processes that share a GPU take turns here. To be called before
    anything initialises CUDA. All processes of a machine may call it at the same time.
    """
    program, ours = find_program(), mps_folder()
    given = os.environ.get(PIPE)
    if given and Path(given) != ours:
        return "" if _answers(program, Path(given)) else f"no MPS daemon answers at {PIPE}={given}"
    if not given and _answers(program, _DEFAULT):
        return ""
    if program is None:
        return f"{_PROGRAM} is not on this machine"
    try:
        with _locked(ours):
            if not _answers(program, ours):
                _launch(program, ours)
    except (OSError, NoLocksError, subprocess.SubprocessError) as error:
        return f"{_PROGRAM} does not start: {error}"
    os.environ[PIPE] = os.environ[LOG] = str(ours)
    return ""


def percentage(trials: int) -> int:
    """Percentage (1 to 100) of a GPU's processors that each of `trials` trials on it may use: twice its part.

    As NVIDIA's documentation advises. Kernels of small networks gain little by more processors and get in
    each other's way: with this limit, eight trials at a time on an H200 made 15 % more trials per hour
    (benchmarks/packing.py).
    """
    return min(100, max(1, 200 // max(trials, 1)))


def stop(patience_sec: float = 5.0) -> bool:
    """Stop the daemon that this user's `start` launched here; returns whether one was stopped.

    A daemon that still has clients after `patience_sec` seconds (trials of another sweep) is left running.
    """
    program, ours = find_program(), mps_folder()
    if program is None or not ours.is_dir():
        return False
    try:
        with _locked(ours):
            until = time.monotonic() + patience_sec
            while _answers(program, ours) and _has_clients(program, ours):
                if time.monotonic() > until:
                    return False
                time.sleep(0.2)
            ended = _answers(program, ours) and _command(program, ours, "quit").returncode == 0
    except (OSError, NoLocksError, subprocess.SubprocessError):
        return False
    for name in (PIPE, LOG):
        if os.environ.get(name) == str(ours):
            del os.environ[name]
    return ended


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make our daemon's folder where it is missing, and hold its lock.

    Raises:
        OSError: the folder cannot be made, or belongs to another user.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    with (folder / "lock").open("wb") as file:
        lock_file(file, folder / "lock")
        yield


def _launch(program: str, folder: Path) -> None:
    """Start the daemon and wait until it answers.

    Raises:
        OSError, subprocess.SubprocessError: it does not.
    """
    # Ray limits a worker to its own GPU and to a part of its processors; the daemon serves all of them.
    binding = ("CUDA_VISIBLE_DEVICES", PERCENTAGE)
    environment = {name: value for name, value in os.environ.items() if name not in binding}
    environment |= {PIPE: str(folder), LOG: str(folder)}
    output = folder / "start.log"
    with output.open("wb") as log:  # no pipe: the daemon would hold it open
        done = subprocess.run(
            [program, "-d"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, timeout=_START_SEC,
        )  # fmt: skip
    if done.returncode:
        lines = output.read_text("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(lines[0])
    until = time.monotonic() + _ANSWER_SEC
    while not _answers(program, folder):
        if time.monotonic() > until:
            raise OSError("it does not answer")
        time.sleep(0.1)


def _answers(program: str | None, folder: Path) -> bool:
    """Whether a daemon serves the pipes in `folder`; without its program, whether there are pipes."""
    if not (folder / "control").exists():
        return False
    try:
        return program is None or _command(program, folder, "get_server_list").returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _has_clients(program: str, folder: Path) -> bool:
    servers = _command(program, folder, "get_server_list").stdout.split()
    return any(_command(program, folder, f"get_client_list {server}").stdout.split() for server in servers)


def _command(program: str, folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program], env={**os.environ, PIPE: str(folder)}, input=f"{command}\n", capture_output=True,
        encoding="utf-8", errors="replace", timeout=_ANSWER_SEC,
    )  # fmt: skip
