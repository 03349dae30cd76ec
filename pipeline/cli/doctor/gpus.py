"""Checks of the GPUs of this machine, and whether trials can share one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from pipeline.cli.doctor.finding import Finding
from pipeline.cluster import mps
from pipeline.storage.readable import readable_memory

_BFLOAT16 = (8, 0)
"""The compute capability from which a GPU multiplies bfloat16 in hardware."""
_FAULT = "a fatal fault of one trial ends all trials of its GPU"


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
