"""Full float32 for a block of code, whatever TF32, bfloat16 or autocast settings the process has."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

torch_state_lock = threading.RLock()
"""Lock for torch's process-wide settings: held while a fid is measured (float32 precision) and while a CUDA
graph is captured (sync debug mode). Replaying a graph depends on no setting and needs no lock."""

FLOAT32_BACKENDS: Sequence[Any] = (
    torch.backends.cudnn.conv,  # type: ignore[attr-defined]
    torch.backends.cuda.matmul,
    torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
)
"""The torch backends that may compute float32 products in a lower precision, as `fp32_precision` says."""


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Inside: full float32, no autocast on `device`, and no cuDNN benchmark; the old settings afterwards.

    These settings belong to the whole process, so `torch_state_lock` is held meanwhile: threads take turns.
    May be nested.
    """
    with torch_state_lock, torch.autocast(device.type, enabled=False):
        benchmark = torch.backends.cudnn.benchmark
        saved = [backend.fp32_precision for backend in FLOAT32_BACKENDS]
        saved_legacy = _legacy_flags()
        try:
            torch.backends.cudnn.benchmark = False
            _set_precision(["ieee"] * len(FLOAT32_BACKENDS), ("highest", False) if saved_legacy else None)
            yield
        finally:
            _set_precision(saved, saved_legacy)
            torch.backends.cudnn.benchmark = benchmark


def _legacy_flags() -> tuple[str, bool] | None:
    """torch's older flags for all products and all of cuDNN; None once `fp32_precision` has been set."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


def _set_precision(precisions: Sequence[str], legacy: tuple[str, bool] | None) -> None:
    """Set the older flags first: they overwrite `fp32_precision`, which decides."""
    if legacy is not None:
        torch.set_float32_matmul_precision(legacy[0])
        torch.backends.cudnn.allow_tf32 = legacy[1]
    for backend, precision in zip(FLOAT32_BACKENDS, precisions, strict=True):
        backend.fp32_precision = precision
