"""NVIDIA's Multi-Process Service: processes that share a GPU compute at the same time, not in turns.

Owns: finding the daemon's program, starting one daemon per user and machine, stopping it. Refuses: CUDA, Ray,
and who shares a GPU (`pipeline.search.resources`).

CUDA connects to the daemon when it is initialised in a process, and never later: `start` comes before that.
A daemon that somebody else runs (`CUDA_MPS_PIPE_DIRECTORY`, or CUDA's own /tmp/nvidia-mps) is used as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

PIPE, LOG = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
PERCENTAGE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
"""Environment variable: how much of a GPU's processors one process may use."""

_PROGRAM = "nvidia-cuda-mps-control"
_PLACES = ("/usr/local/nvidia/bin", "/usr/bin")
"""Where drivers lie that are not on the PATH: containers have them mounted into the first."""
_DEFAULT = Path("/tmp/nvidia-mps")
"""Where CUDA looks for a daemon by itself."""
_ANSWER_SEC = 10.0
_START_SEC = 30.0


def find() -> str | None:
    """The path of the daemon's program, or None."""
    return shutil.which(_PROGRAM) or shutil.which(_PROGRAM, path=os.pathsep.join(_PLACES))


def state() -> Literal["runs", "found", "missing"]:
    """Of this machine: a daemon runs that `start` would use, its program is there, or neither."""
    program = find()
    given = os.environ.get(PIPE)
    places = [Path(given)] if given else [_DEFAULT, _folder()]
    if any(_answers(program, place) for place in places):
        return "runs"
    return "found" if program and not given else "missing"


def start() -> str:
    """Connect this process, and those that it starts, to an MPS daemon; start one where none runs.

    Returns an empty text, or why processes that share a GPU take turns here. To be called before anything
    initialises CUDA. A machine's processes may all call it at the same time.
    """
    program, own = find(), _folder()
    given = os.environ.get(PIPE)
    if given and Path(given) != own:
        return "" if _answers(program, Path(given)) else f"no MPS daemon answers at {PIPE}={given}"
    if not given and _answers(program, _DEFAULT):
        return ""
    if program is None:
        return f"{_PROGRAM} is not on this machine"
    try:
        with _locked(own):
            if not _answers(program, own):
                _launch(program, own)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{_PROGRAM} does not start: {error}"
    os.environ[PIPE] = os.environ[LOG] = str(own)
    return ""


def percentage(trials: int) -> int:
    """How much of a GPU's processors each of some trials on it should use: twice what it would get of them.

    As NVIDIA's documentation advises. Kernels of small networks gain little by more processors and stand in
    each other's way: eight trials on an H200 made 15 % more trials per hour (benchmarks/packing.py).
    """
    return min(100, max(1, 200 // max(trials, 1)))


def stop(patience_sec: float = 5.0) -> bool:
    """Stop the daemon that this user's `start` launched here; returns whether one was stopped.

    A daemon that still has clients after `patience_sec` (the trials of another sweep) is left running.
    """
    program, own = find(), _folder()
    if program is None or not own.is_dir():
        return False
    try:
        with _locked(own):
            until = time.monotonic() + patience_sec
            while _answers(program, own) and _clients(program, own):
                if time.monotonic() > until:
                    return False
                time.sleep(0.2)
            ended = _answers(program, own) and _ask(program, own, "quit").returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
    for name in (PIPE, LOG):
        if os.environ.get(name) == str(own):
            del os.environ[name]
    return ended


def _folder() -> Path:
    """Of our daemon's pipes and logs: one for each user of a machine."""
    return Path(tempfile.gettempdir()) / f"gansweep-mps-{os.getuid()}"


@contextlib.contextmanager
def _locked(own: Path) -> Iterator[None]:
    """Hold our daemon's folder, and make it.

    Raises:
        OSError: it cannot be made, or somebody else made it.
    """
    own.mkdir(mode=0o700, exist_ok=True)
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{own} belongs to another user")
    with (own / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _launch(program: str, own: Path) -> None:
    """Start the daemon and wait until it answers.

    Raises:
        OSError, subprocess.SubprocessError: it does not.
    """
    # Ray shows a worker its own GPU alone, and its share binds it alone; the daemon serves all.
    binding = ("CUDA_VISIBLE_DEVICES", PERCENTAGE)
    environment = {name: value for name, value in os.environ.items() if name not in binding}
    environment |= {PIPE: str(own), LOG: str(own)}
    said = own / "start.log"
    with said.open("w") as log:  # no pipe: the daemon would hold it open
        done = subprocess.run(
            [program, "-d"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, timeout=_START_SEC,
        )  # fmt: skip
    if done.returncode:
        lines = said.read_text(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(lines[0])
    until = time.monotonic() + _ANSWER_SEC
    while not _answers(program, own):
        if time.monotonic() > until:
            raise OSError("it does not answer")
        time.sleep(0.1)


def _answers(program: str | None, place: Path) -> bool:
    """Whether a daemon serves the pipes in `place`; without its program, whether there are pipes."""
    if not (place / "control").exists():
        return False
    try:
        return program is None or _ask(program, place, "get_server_list").returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _clients(program: str, place: Path) -> bool:
    """Whether a process uses the daemon."""
    servers = _ask(program, place, "get_server_list").stdout.split()
    return any(_ask(program, place, f"get_client_list {server}").stdout.split() for server in servers)


def _ask(program: str, place: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program], env={**os.environ, PIPE: str(place)}, input=f"{command}\n", capture_output=True, text=True,
        timeout=_ANSWER_SEC,
    )  # fmt: skip
