"""Open ports of Ray are found in /proc."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.cli.doctor.ports import check_ray_ports, listening_ports

_LISTEN = """
import socket, sys
sockets = [socket.create_server((host, 0)) for host in ("0.0.0.0", "127.0.0.1")]
print(*(s.getsockname()[1] for s in sockets), flush=True)
sys.stdin.read()
"""


def test_open_ports_of_ray_are_named() -> None:
    """A process with the name of a Ray worker, one port on all interfaces and one on loopback."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LISTEN, "ray::Worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        open_port, loopback = map(int, process.stdout.readline().split())
        found = {port.number: port.open for port in listening_ports()}
        assert found[open_port]
        assert not found[loopback]
        finding = check_ray_ports()
        assert finding.level == "warn"
        assert "all interfaces" in finding.text
        assert "workers" in finding.text
    finally:
        process.communicate()


def test_without_ray_the_finding_names_what_a_sweep_opens(tmp_path: Path) -> None:
    finding = check_ray_ports(tmp_path)
    assert finding.level == "ok"
    assert "all interfaces" in finding.text
