"""Checks of this machine: Python, cores, memory, open files, sockets, bfloat16 on the CPU."""

from __future__ import annotations

import platform
from pathlib import Path

from pipeline.cli.doctor.finding import Finding, judge
from pipeline.cluster import local_machine
from pipeline.cluster.socket_folder import ray_folder
from pipeline.storage.readable import readable_memory


def check_python() -> Finding:
    """The version of Python; never bad, as the package does not install below 3.11."""
    return Finding("python", "ok", f"{platform.python_version()} ({platform.system()} {platform.machine()})")


def check_cores() -> Finding:
    """The cores that a local sweep would use."""
    return Finding("cores", "ok", str(local_machine.usable_cores()))


def check_memory() -> list[Finding]:
    """The memory for as many trials as there are cores, and the shared memory."""
    free, total = local_machine.available_memory()
    text = f"{readable_memory(free)} available of {readable_memory(total)}"
    trials = local_machine.usable_cores().usable
    return [
        *judge("memory", text, lambda: local_machine.check_memory(trials)),
        *judge("shm", "shared memory can be used", local_machine.check_shared_memory),
    ]


def check_limits() -> list[Finding]:
    """The limits of open files and processes, for as many trials as there are cores."""
    trials = local_machine.usable_cores().usable
    return judge("limits", "open files and processes are enough", lambda: local_machine.raise_limits(trials))


def check_sockets() -> Finding:
    """Where a local Ray would keep its sockets. Raises ConfigError where there is no place."""
    found = ray_folder()
    return Finding("sockets", "warn" if found.note else "ok", found.note or f"Ray's are in {found.path}")


def check_bfloat16() -> Finding:
    """Whether this CPU multiplies bfloat16 in hardware."""
    known = Path("/proc/cpuinfo").read_text("utf-8", "replace").split()
    units = [flag for flag in ("avx512_bf16", "amx_bf16", "bf16") if flag in known]
    if units:
        return Finding("bf16", "ok", f"in this CPU's hardware: {', '.join(units)}")
    return Finding("bf16", "ok", "not in this CPU's hardware: keep precision = float32 without a GPU")
