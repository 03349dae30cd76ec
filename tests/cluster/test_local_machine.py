"""The cores, memory and limits of this machine, also as a container sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cluster import local_machine
from pipeline.cluster.local_machine import (
    available_memory,
    cgroup_folders,
    check_memory,
    check_shared_memory,
    raise_limits,
    shared_memory_usable,
    usable_cores,
)
from pipeline.errors import ConfigError

MEMORY = "MemTotal:       8388608 kB\nMemFree: 1 kB\nMemAvailable:   4194304 kB\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup rw\n"
V1 = (
    "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


def machine(root: Path, mounts: str, own: str, files: dict[str, str]) -> Path:
    """A file system with /proc and /sys/fs/cgroup; files: below the latter."""
    for name, text in {"mountinfo": mounts, "cgroup": own}.items():
        (root / "proc/self").mkdir(parents=True, exist_ok=True)
        (root / "proc/self" / name).write_text(text)
    (root / "proc/meminfo").write_text(MEMORY)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


@pytest.mark.parametrize(
    ("mounts", "own", "files", "usable"),
    [
        (V2, "0::/\n", {"cpu.max": "150000 100000\n"}, 1),
        (V2, "0::/\n", {"cpu.max": "30000 100000\n"}, 1),
        (V2, "0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "350000 100000\n"}, 3),
        (V2, "0::/a\n", {"a/cpu.max": "400000 100000\n", "cpu.max": "200000 100000\n"}, 2),
        (V2.replace("0:26 /", "0:26 /docker/1"), "0::/docker/1\n", {"cpu.max": "500000 100000\n"}, 5),
        (V2, "0::/../outside\n", {"cpu.max": "500000 100000\n"}, 5),
        (
            V1,
            "4:cpu,cpuacct:/job\n5:memory:/\n",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "250000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"},
            2,
        ),
        (V1, "4:cpu,cpuacct:/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "-1"}, 8),
        (V2, "0::/\n", {"cpu.max": "1600000 100000\n"}, 8),
        (V2, "0::/\n", {"cpu.max": "nonsense"}, 8),
        ("", "", {}, 8),
    ],
)
def test_the_limit_of_each_cgroup_above_counts(
    tmp_path: Path, mounts: str, own: str, files: dict[str, str], usable: int
) -> None:
    found = usable_cores(machine(tmp_path, mounts, own, files))
    assert (found.present, found.usable) == (8, usable)
    assert bool(found.limit) == (usable < 8)


def test_an_affinity_is_a_limit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert str(usable_cores(tmp_path)) == "1 usable of 8 (taskset or a cpuset allows no more)"


def test_a_machine_without_cgroups_has_none(tmp_path: Path) -> None:
    assert list(cgroup_folders("cpu", tmp_path)) == []


def test_memory_is_what_the_cgroup_leaves(tmp_path: Path) -> None:
    gib = 2**30
    root = machine(tmp_path, V2, "0::/\n", {})
    assert available_memory(root) == (4 * gib, 8 * gib)
    files = {
        "memory.max": f"{2 * gib}",
        "memory.current": f"{gib}",
        "memory.stat": f"inactive_file {gib // 2}",
    }
    assert available_memory(machine(tmp_path, V2, "0::/\n", files)) == (1.5 * gib, 2 * gib)


def test_too_little_memory_is_a_warning_or_an_error(tmp_path: Path) -> None:
    root = machine(tmp_path, V2, "0::/\n", {"memory.max": f"{2**30}", "memory.current": "0"})
    assert check_memory(1, root) == []
    assert "2 trials at a time take 0.7 GiB each: lower --concurrency" in check_memory(2, root)[0]
    machine(tmp_path, V2, "0::/\n", {"memory.current": f"{2**30}"})
    with pytest.raises(ConfigError, match="too little memory is available: 0 GiB of 1 GiB"):
        check_memory(1, root)


def test_shared_memory_that_is_missing(tmp_path: Path) -> None:
    assert not shared_memory_usable(tmp_path / "shm")
    assert "kept on disk" in check_shared_memory(tmp_path / "shm")[0]


def test_the_soft_limit_of_open_files_becomes_the_hard_one() -> None:
    code = (
        "import resource; from pipeline.cluster.local_machine import raise_limits\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 256)); print(raise_limits(2))\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); raise_limits(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[]", "(256, 256)"]
    assert "allows too few open files: ulimit -Hn is 64" in done.stderr


def test_few_of_them_for_many_trials_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_machine, "_raised", lambda kind: 256)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    files, threads = raise_limits(16)
    assert files.startswith("ulimit -Hn is 256, and 16 trials at a time may need 352 open files: raise")
    assert threads.startswith("ulimit -Hu is 256, and 16 trials at a time may need 1190 threads of all")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert raise_limits(10) == []


def test_too_few_threads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_machine, "_raised", lambda kind: 200)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    with pytest.raises(ConfigError, match=r"too few threads .*ulimit -Hu is 200 .*nproc"):
        raise_limits(1)
