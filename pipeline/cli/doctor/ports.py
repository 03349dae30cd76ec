"""Which TCP ports of this machine a local Ray listens on, read from /proc without connecting anywhere."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.cli.doctor.finding import Finding

_LISTENS = "0A"
_NAMES = {"gcs_server": "GCS", "raylet": "raylet", "dashboard": "dashboard", "ray::": "workers"}


class Port(NamedTuple):
    """A TCP port. open: on all interfaces, not on loopback or one address. process: its command line."""

    number: int
    open: bool
    process: str


def check_ray_ports(proc: Path = Path("/proc")) -> Finding:
    """The open ports of a Ray on this machine. Ray binds all interfaces, whatever address it was given."""
    groups: dict[str, list[int]] = defaultdict(list)
    for port in listening_ports(proc):
        name = next((name for mark, name in _NAMES.items() if mark in port.process), "")
        if port.open and name:
            groups[name].append(port.number)
    if not groups:
        text = "While a sweep runs, its GCS, raylet and workers listen on all interfaces, guarded by a token"
        return Finding("ray ports", "ok", f"no Ray runs here. {text}: close them to other machines")
    parts = [f"{name} {_few(sorted(set(numbers)))}" for name, numbers in groups.items()]
    text = f"open on all interfaces: {', '.join(parts)}. A token guards them; close them with a firewall"
    return Finding("ray ports", "warn", text)


def listening_ports(proc: Path = Path("/proc")) -> Iterator[Port]:
    """The TCP ports of Ray's processes, as far as this user may read their details."""
    owners = _owners(proc)
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (proc / "net" / table).read_text("utf-8", "replace").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and fields[9] in owners:
                    address, _, number = fields[1].partition(":")
                    yield Port(int(number, 16), set(address) == {"0"}, owners[fields[9]])


def _owners(proc: Path) -> dict[str, str]:
    """Inode of a socket -> command line of the process that holds it; of processes of Ray."""
    owners = {}
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if "ray" in command:
                for link in (folder / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        target = os.readlink(link)
                        if target.startswith("socket:["):
                            owners[target[8:-1]] = command
    return owners


def _few(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:4]))
    return shown if len(numbers) <= 4 else f"{shown} and {len(numbers) - 4} more"
