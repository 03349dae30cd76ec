"""Folders for Unix sockets, whose paths hold few bytes and which some file systems do not have.

A local Ray keeps its sockets below RAY_TMPDIR or TMPDIR; job schedulers make that a long path, or delete it.
Where it cannot be used, a usual short folder is taken. Imports no Ray.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.storage.folders import existing_folder, free_bytes

PATH_BYTES = 107
"""The longest path of a Unix socket."""

_USUAL = "/tmp"
_LEAST_BYTES = 2_000_000  # Ray's logs of a short sweep
_MPS_LONGEST = "nvidia-cuda-mps-control.pid"
_UNQUOTABLE = "'\"\\"
"""Characters that Ray's command lines do not carry."""


@dataclass(frozen=True)
class SocketFolder:
    """A folder that can hold sockets. note: why it is not the one that the environment says, or empty."""

    path: Path
    note: str = ""


def ray_folder() -> SocketFolder:
    """The folder for the sessions of a local Ray: RAY_TMPDIR's, TMPDIR's, or a short one.

    Raises:
        ConfigError: RAY_TMPDIR, which nothing replaces, cannot be used; or no folder can.
    """
    longest = f"session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    names = ("ray", f"ray-{os.getuid()}")  # the first may belong to another user
    given = os.environ.get("RAY_TMPDIR")
    if not given:
        return _find(names, longest)
    found, problem = _first_usable(Path(given), names, longest)
    if found is None:
        most = PATH_BYTES - len(longest) - len("/ray/")
        raise ConfigError(
            f"RAY_TMPDIR cannot hold Ray's sockets: {problem}",
            fix=f"export RAY_TMPDIR=/tmp, or another folder on a local disk, of at most {most} bytes",
        )
    return SocketFolder(found, _note(found, problem))


def mps_folder() -> Path:
    """The folder of this user's MPS daemon: in TMPDIR, or in a short folder. CUDA's pipes are sockets."""
    name = f"gansweep-mps-{os.getuid()}"
    try:
        return _find((name,), _MPS_LONGEST).path
    except ConfigError:
        return Path(_USUAL) / name


def _find(names: Sequence[str], longest: str) -> SocketFolder:
    """The first folder of one of these names that can hold a socket `longest`; ConfigError for none."""
    first = ""
    for base in _bases():
        found, problem = None, f"{base} is not there"
        if os.path.isdir(base):
            found, problem = _first_usable(base, names, longest)
        first = first or problem
        if found is not None:
            return SocketFolder(found, _note(found, first))
    raise ConfigError(
        "no folder of this machine can hold Ray's sockets",
        seen=first,
        fix="export RAY_TMPDIR=FOLDER, one on a local disk that this user may write",
    )


def _bases() -> Iterator[Path]:
    """Where temporary files may be, the user's wish first."""
    wished = os.environ.get("TMPDIR")
    for text in dict.fromkeys((wished, _USUAL, os.environ.get("XDG_RUNTIME_DIR"), "/var/tmp", "/dev/shm")):
        if text:
            yield Path(text).absolute()


def _first_usable(base: Path, names: Sequence[str], longest: str) -> tuple[Path | None, str]:
    """The first of the names below `base` that can hold a socket; and why the one before it cannot."""
    first = ""
    for name in names:
        folder = base.absolute() / name
        problem = _problem(folder, longest)
        if not problem:
            return folder, first
        first = first or f"{folder} cannot be used ({problem})"
    return None, first


def _note(found: Path, problem: str) -> str:
    return f"Ray's sockets and logs are in {found}: {problem}" if problem else ""


def _problem(folder: Path, longest: str) -> str:
    """Why a socket of that name in `folder`, which need not exist, cannot be made; "" = it can.

    Makes a socket in the folder, or above it, and removes it.
    """
    length = len(os.fsencode(folder)) + 1 + len(longest)
    if length > PATH_BYTES:
        return f"a socket's path holds {PATH_BYTES} bytes, here it would have {length}"
    text = str(folder)
    if not text.isascii() or not text.isprintable() or any(mark in text for mark in _UNQUOTABLE):
        return "Ray takes ASCII without quotes in a path"
    try:
        existing = existing_folder(folder)
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
            path = existing / f".{secrets.token_hex(4)}"
            probe.bind(os.fspath(path))
            path.unlink()
        return "its disk is full" if free_bytes(existing) < _LEAST_BYTES else ""
    except OSError as error:
        return error.strerror or str(error)
