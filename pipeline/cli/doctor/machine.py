"""Checks of this machine: Python, cores, memory, disk or object store, bfloat16 on the CPU."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from pathlib import Path

from pipeline.cli.doctor.finding import Finding
from pipeline.errors import SweepError
from pipeline.storage.object_store import ObjectStore
from pipeline.storage.readable import readable_memory

_GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup")


def check_python() -> Finding:
    """The version of Python; never bad, as the package does not install below 3.11."""
    return Finding("python", "ok", f"{platform.python_version()} ({platform.system()} {platform.machine()})")


def check_cores(cgroup: Path = _CGROUP) -> Finding:
    """The usable cores; a warning where a container may use fewer than it sees."""
    count = os.cpu_count() or 1
    usable = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(count)
    limit = _cgroup_cores(cgroup)
    if limit is not None and limit < usable:
        text = f"{count}, of which this container may use {limit:g}: pass --concurrency {max(1, int(limit))}"
        return Finding("cores", "warn", text)
    return Finding("cores", "ok", f"{usable:g} usable of {count}")


def _cgroup_cores(root: Path) -> float | None:
    """The container's CPU limit in cores (cgroup v2, then v1), or None where there is none."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota_us = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu" / "cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    return None


def check_memory() -> Finding:
    """The available memory, within the container's limit."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(fields["MemTotal"].split()[0]) * 1024
    free = int(fields["MemAvailable"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        limit = int((_CGROUP / "memory.max").read_text())
        total, free = min(total, limit), min(free, limit)
    text = f"{readable_memory(free)} available of {readable_memory(total)}"
    if free < 2 * _GIB:
        return Finding("memory", "warn", f"{text}: every trial is a process with torch; lower --concurrency")
    return Finding("memory", "ok", text)


def check_shared_memory() -> Finding:
    """The size of /dev/shm, where Ray keeps shared objects."""
    usage = shutil.disk_usage("/dev/shm")
    text = f"{readable_memory(usage.total)} in /dev/shm"
    if usage.total < _GIB:
        return Finding("shm", "warn", f"{text}: Ray falls back to disk; give the container --shm-size=4g")
    return Finding("shm", "ok", text)


def check_disk(out: Path) -> Finding:
    """The free space below `out`, which need not exist."""
    folder = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.exists())
    usage = shutil.disk_usage(folder)
    text = f"{readable_memory(usage.free)} free at {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "bad", f"{folder} cannot be written: choose another --out")
    if usage.free < _GIB:
        return Finding("disk", "bad", f"{text}: too little for checkpoints and Ray's logs")
    if usage.free < 0.05 * usage.total:
        return Finding("disk", "warn", f"{text}: over 95% full, Ray refuses to spill objects")
    return Finding("disk", "ok", text)


def check_store(url: str) -> Finding:
    """Whether the object store at `url` answers and can be written."""
    try:
        ObjectStore(url).check()
    except (OSError, SweepError) as error:
        return Finding("store", "bad", str(error))
    return Finding("store", "ok", f"{url} answers, and can be written")


def check_bfloat16() -> Finding:
    """Whether this CPU multiplies bfloat16 in hardware."""
    known = Path("/proc/cpuinfo").read_text().split()
    units = [flag for flag in ("avx512_bf16", "amx_bf16", "bf16") if flag in known]
    if units:
        return Finding("bf16", "ok", f"in this CPU's hardware: {', '.join(units)}")
    return Finding("bf16", "ok", "not in this CPU's hardware: keep precision = float32 without a GPU")
