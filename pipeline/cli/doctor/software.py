"""Checks of the installed packages: torch with torchvision and the GPUs that it sees; tested versions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.cli.doctor.finding import Finding
from pipeline.cli.doctor.gpus import gpu_findings
from pipeline.cluster.versions import version_of

_PINNED = ("torch", "torchvision", "ray", "optuna", "mlflow")
_CONSTRAINTS = Path(__file__).resolve().parents[3] / "constraints.txt"

# Run in another process: a broken driver or a wrong wheel ends that one, not this.
_REPORT_TORCH = """
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


def check_torch(command: Sequence[str] = (sys.executable, "-c", _REPORT_TORCH)) -> list[Finding]:
    """Import torch in another process: its version, whether torchvision fits, and the GPUs that it sees.

    command: prints the report that `torch_findings` takes as its last line.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return [Finding("torch", "bad", "importing it takes over a minute: is the disk or the driver stuck?")]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return [Finding("torch", "bad", f"cannot be used: {last}")]
    return torch_findings(json.loads(done.stdout.splitlines()[-1]))


def torch_findings(report: Mapping[str, Any]) -> list[Finding]:
    """The findings on torch, torchvision and GPUs.

    Args:
        report: `version` of torch; `cuda`, the version that it was built for, or None; `vision`, the version
            of torchvision, or "" if it cannot be imported, with the error in `why`; `gpus` as `gpu_findings`
            takes them.
    """
    build = f"CUDA {report['cuda']}" if report["cuda"] else "CPU build"
    torch = Finding("torch", "ok", f"{report['version']} ({build})")
    return [torch, _torchvision(report), *gpu_findings(report)]


def _torchvision(report: Mapping[str, Any]) -> Finding:
    """A torchvision built for another torch shows only when it is imported."""
    if report["vision"]:
        text = f"torchvision {report['vision']} works with torch {report['version']}"
        return Finding("torch pair", "ok", text)
    text = f"torchvision does not work with torch {report['version']} ({report['why']})"
    return Finding("torch pair", "bad", f"{text}: pip install -c constraints.txt .")


def check_versions(pins: Mapping[str, str] | None = None) -> list[Finding]:
    """The installed versions of the main packages, compared with the tested ones.

    pins: tested version by package; None = those of constraints.txt.
    """
    tested = read_pins(_CONSTRAINTS) if pins is None else pins
    return [_check_version(name, tested.get(name)) for name in _PINNED]


def read_pins(path: Path) -> dict[str, str]:
    """The `name==version` lines of a constraints file, names in lower case; empty without the file."""
    if not path.is_file():
        return {}
    found = re.findall(r"(?m)^\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*==\s*([^\s;#]+)", path.read_text())
    return {name.lower(): version for name, version in found}


def _check_version(name: str, pin: str | None) -> Finding:
    version = version_of(name)
    if version is None:
        return Finding(name, "bad", "not installed: pip install -c constraints.txt .")
    if pin is not None and _public(version) != _public(pin):
        return Finding(name, "warn", f"{version}, tested with {pin}: pip install -c constraints.txt .")
    return Finding(name, "ok", version)


def _public(version: str) -> str:
    """A version without its local part: `2.14.1+cu130` -> `2.14.1`."""
    return version.split("+")[0]
