"""Full float32, whatever else is switched on in the process.

Owns: torch's flags for TF32, bfloat16 products and autocast, around what must be exact. Refuses: knowing what
is computed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

torch_state_lock = threading.RLock()
"""Held by whatever needs the flags of the whole process to itself: precision while a fid is measured, the
debug mode for waits while a CUDA graph is recorded. A replay depends on no flag and needs no lock."""

PARTS: Sequence[Any] = (
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.cuda.matmul,
    torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
)
"""What computes float32 products in less than float32 where its `fp32_precision` says so."""


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Full float32, whatever the trainer has switched on around us, and no search for algorithms.

    These flags are the whole process's: `exclusive` is held, as it is by steps that are being recorded and
    by those that cannot be. May be nested, and used by several threads, one at a time.
    """
    with torch_state_lock, torch.autocast(device.type, enabled=False):
        search = torch.backends.cudnn.benchmark
        precise, older = [part.fp32_precision for part in PARTS], _older_flags()
        try:
            torch.backends.cudnn.benchmark = False
            _set_precision(["ieee"] * len(PARTS), ("highest", False) if older else None)
            yield
        finally:
            _set_precision(precise, older)
            torch.backends.cudnn.benchmark = search


def _older_flags() -> tuple[str, bool] | None:
    """torch's flags for all products and all of cuDNN; None once somebody has set the parts one by one."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


def _set_precision(parts: Sequence[str], older: tuple[str, bool] | None) -> None:
    """The parts' own settings go last: they decide, and the older flags overwrite them."""
    if older is not None:
        torch.set_float32_matmul_precision(older[0])
        torch.backends.cudnn.allow_tf32 = older[1]
    for part, precision in zip(PARTS, parts, strict=True):
        part.fp32_precision = precision
