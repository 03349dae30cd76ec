"""What a trial wants of the process that it runs in.

Owns: threads, denormals, cuDNN's choice, and the allocator's memory. Refuses: anything about one trial.
"""

from __future__ import annotations

import ctypes

import torch

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
_GIB = 2**30


def prepare_process(threads: int) -> None:
    """Set this process up for training on `threads` threads; the last call counts."""
    torch.set_num_threads(max(1, threads))
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed: every step asks for the same sizes again.

    Otherwise it hands large blocks back to the system and faults them in anew, at hundreds of pages a step.
    Returns whether the C library took it; one that is not glibc is left as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _GIB) and mallopt(_TRIM_THRESHOLD, _GIB))
