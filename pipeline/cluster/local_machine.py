"""What this machine gives to a Ray of its own: cores, memory, open files. Imports no Ray and writes nothing.

What ends a search is raised; what only slows or endangers it is returned, one line each.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.storage.readable import readable_memory

_ROOT = Path("/")
_SHM = Path("/dev/shm")
_GIB = 2**30

TRIAL_BYTES = 0.7 * _GIB
"""Memory of a trial's process with torch and a small network."""

_RAY_BYTES = 0.2 * _GIB
"""Ray does not start with less."""

_MOST = 65536
"""No limit is raised further: programs that close all possible files at their start would take minutes."""


@dataclass(frozen=True)
class Cores:
    """present: of the machine. usable: by this process, at least 1. limit: why these are fewer, or empty."""

    present: int
    usable: int
    limit: str = ""

    def __str__(self) -> str:
        return f"{self.usable} usable of {self.present}{f' ({self.limit})' if self.limit else ''}"


def usable_cores(root: Path = _ROOT) -> Cores:
    """The cores that this process may use: those of its affinity, within its cgroups' limit.

    A part of a core is none, except where there is no whole one.
    """
    present = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    quota = min(
        (cores for folder in cgroup_folders("cpu", root) if (cores := _quota(folder))), default=present
    )
    if quota < allowed:
        return Cores(present, max(1, int(quota)), f"a cgroup allows {quota:.3g}")
    return Cores(present, allowed, "taskset or a cpuset allows no more" if allowed < present else "")


def _quota(cgroup: Path) -> float | None:
    """The limit of one cgroup in cores (version 2, then 1); None where it has none."""
    with suppress(OSError, ValueError):  # "max" is no number: no limit
        quota, period = (cgroup / "cpu.max").read_text("utf-8").split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError):
        used_us, period_us = (
            int((cgroup / f"cpu.cfs_{name}_us").read_text("utf-8")) for name in ("quota", "period")
        )
        return used_us / period_us if used_us > 0 else None
    return None


def cgroup_folders(controller: str, root: Path = _ROOT) -> Iterator[Path]:
    """The cgroups of this process that may limit it, the innermost first; of version 2 and of version 1."""
    with suppress(OSError):
        own: dict[str, str] = {}
        for line in (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines():
            _, names, path = line.split(":", 2)
            own |= dict.fromkeys(names.split(","), path)
        for line in (root / "proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
            (*_, shown, mounted), (kind, _, options) = _mount(line)
            name = "" if kind == "cgroup2" else controller
            if kind.startswith("cgroup") and name in own and (not name or name in options.split(",")):
                below = os.path.relpath(own[name], shown)
                # In a container the mount begins at its own cgroup, and the path may be that of the host.
                parts = () if below.startswith("..") else Path(below).parts
                for depth in range(len(parts), -1, -1):
                    yield root / mounted.lstrip("/") / Path(*parts[:depth])


def _mount(line: str) -> tuple[list[str], list[str]]:
    """The fields of a line of mountinfo: up to the mount point, and kind, source and options."""
    left, _, right = line.partition(" - ")
    return left.split()[:5], right.split()[:3]


def available_memory(root: Path = _ROOT) -> tuple[int, int]:
    """Available and total memory in bytes, within the limits of this process's cgroups."""
    fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text("utf-8").splitlines())
    total, free = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    for folder in cgroup_folders("memory", root):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            with suppress(OSError, ValueError):  # "max" is no number: no limit
                limit = int((folder / limit_name).read_text("utf-8"))
                cached = _cached_bytes(folder)
                total = min(total, limit)
                free = min(free, max(0, limit - int((folder / used_name).read_text("utf-8")) + cached))
    return free, total


def _cached_bytes(cgroup: Path) -> int:
    """What a cgroup's files take in memory, which the system gives up when it is needed."""
    with suppress(OSError, ValueError):
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text("utf-8").splitlines())
        return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    return 0


def check_memory(trials: int, root: Path = _ROOT) -> list[str]:
    """A warning where the memory may not be enough for so many trials at a time.

    Raises:
        ConfigError: Ray does not start with it.
    """
    free, total = available_memory(root)
    text = f"{readable_memory(free)} of {readable_memory(total)}"
    if free < _RAY_BYTES:
        raise ConfigError(
            "too little memory is available: {seen}",
            rule=f"Ray starts with {readable_memory(_RAY_BYTES)} at least, and a trial takes about "
            f"{readable_memory(TRIAL_BYTES)}",
            seen=text,
            fix="end other programs, or raise the container's limit",
        )
    if free < trials * TRIAL_BYTES:
        each = f"{trials} trials at a time take {readable_memory(TRIAL_BYTES)} each"
        return [f"only {text} of memory is available, and {each}: lower --concurrency"]
    return []


def shared_memory_usable(shm: Path = _SHM) -> bool:
    """Whether Ray can keep shared objects in memory; without it they are files in its folder."""
    return shm.is_dir() and os.access(shm, os.W_OK | os.X_OK)


def check_shared_memory(shm: Path = _SHM) -> list[str]:
    """A warning where the images that trials share are kept on a disk, as shared memory is too small."""
    if not shared_memory_usable(shm):
        return [f"{shm} is missing or cannot be written: what trials share is kept on disk, which is slower"]
    total = shutil.disk_usage(shm).total
    if total < _GIB:
        slow = "where it is full, Ray falls back to disk"
        return [f"only {readable_memory(total)} in {shm}: {slow}; give the container --shm-size=4g"]
    return []


@dataclass(frozen=True)
class _Limit:
    """A limit of the shell. name: in limits.conf. least: what Ray needs; each: what comes with each trial."""

    kind: int
    command: str
    name: str
    what: str
    least: int
    each: int

    @property
    def fix(self) -> str:
        return f"raise the hard limit ({self.name} in limits.conf, or docker run --ulimit {self.name}=8192)"


_FILES = _Limit(resource.RLIMIT_NOFILE, "ulimit -Hn", "nofile", "open files", 96, 16)
_THREADS = _Limit(
    resource.RLIMIT_NPROC, "ulimit -Hu", "nproc", "threads of all this user's processes", 230, 60
)


def raise_limits(trials: int) -> list[str]:
    """Raise this process's soft limits of open files and threads to the hard ones, which Ray inherits.

    Returns warnings where they are low for so many trials at a time.

    Raises:
        ConfigError: Ray does not start with them.
    """
    warnings = []
    for limit in (_FILES, _THREADS) if os.getuid() else (_FILES,):  # root may have any number of threads
        found, needed = _raised(limit.kind), limit.least + limit.each * trials
        if found < limit.least:
            raise ConfigError(
                f"this shell allows too few {limit.what}: {{seen}}",
                rule=f"Ray needs {limit.least}",
                seen=f"{limit.command} is {found}",
                fix=limit.fix,
            )
        if found < needed:
            need = f"{trials} trials at a time may need {needed} {limit.what}"
            warnings.append(f"{limit.command} is {found}, and {need}: {limit.fix}, or lower --concurrency")
    return warnings


def _raised(kind: int) -> int:
    """Raise a soft limit to the hard one, or to `_MOST`; returns what holds now."""
    before, hard = resource.getrlimit(kind)
    soft, possible = (_MOST if limit == resource.RLIM_INFINITY else limit for limit in (before, hard))
    wanted = min(possible, _MOST)
    if wanted <= soft:
        return soft
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (wanted, hard))
        return wanted
    return soft
