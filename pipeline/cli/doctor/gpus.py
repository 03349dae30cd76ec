"""The GPUs of this machine, and whether trials can share one.

Owns: the findings on GPUs and MPS, from what a subprocess with torch has printed. Refuses: importing torch.
"""

from __future__ import annotations

import shutil
from typing import Any

from pipeline.cli.doctor.finding import Finding
from pipeline.cluster import mps

_GIB = 2**30
_BFLOAT16 = (8, 0)
"""The compute capability from which on multiplications in bfloat16 are the hardware's."""
_FAULT = "a fatal fault of one trial ends all trials of its GPU"


def gpu_findings(seen: dict[str, Any]) -> list[Finding]:
    """A finding for each GPU and one for MPS; or why there is none.

    seen: "gpus", each a list of name, bytes and both parts of the compute capability; "cuda", the version
    that torch was built for, or None.
    """
    if seen["gpus"]:
        return [*(_gpu(*gpu) for gpu in seen["gpus"]), _mps()]
    if shutil.which("nvidia-smi") is None:
        return [Finding("gpu", "ok", "none: trials train on cores, one each")]
    why = "the CPU build of torch is installed" if not seen["cuda"] else "torch does not see it (driver?)"
    return [Finding("gpu", "warn", f"nvidia-smi is here, but {why}")]


def _gpu(name: str, memory: int, major: int, minor: int) -> Finding:
    text = f"{name}, {memory / _GIB:.0f} GiB, compute {major}.{minor}"
    if (major, minor) >= _BFLOAT16:
        return Finding("gpu", "ok", f"{text}, bfloat16 in hardware")
    return Finding("gpu", "warn", f"{text}: bfloat16 is emulated: --set precision=float32")


def _mps() -> Finding:
    found = mps.state()
    if found == "runs":
        text = f"an MPS daemon runs: trials that share a GPU compute at the same time, and {_FAULT}"
        return Finding("mps", "ok", text)
    if found == "found":
        text = f"here, and started where trials share a GPU: they compute at the same time, and {_FAULT}"
        return Finding("mps", "ok", text)
    text = (
        "nvidia-cuda-mps-control is not here: trials that share a GPU take turns, `auto` packs 2 at most; "
        f"with it they compute at the same time (then {_FAULT})"
    )
    return Finding("mps", "warn", text)
