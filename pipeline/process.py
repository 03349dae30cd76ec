"""What a trial wants of the process that it runs in.

Owns: threads, denormals, cuDNN's choice, the allocators' memory, its end where it hangs. Refuses: anything
about one trial.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
from collections.abc import Callable, Iterator

import torch

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
_GIB = 2**30


def prepare_process(threads: int) -> None:
    """Set this process up for training on `threads` threads; the last call counts."""
    torch.set_num_threads(max(1, threads))
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()


def release_memory(device: torch.device) -> None:
    """Give back what nobody holds any more of a GPU, to this process' next trial or to its neighbours."""
    if device.type == "cuda":
        gc.collect()  # a trainer and its graphs know each other
        torch.cuda.empty_cache()


@contextlib.contextmanager
def ending_silence(bound_sec: float) -> Iterator[Callable[[], None]]:
    """Inside, `bound_sec` without a call of what this gives end the process, whatever it hangs in.

    Where it hung stands in its log. For work that nobody watches from outside.
    """
    log = os.dup(2)  # sys.stderr may be anything

    def alive() -> None:
        faulthandler.dump_traceback_later(bound_sec, exit=True, file=log)

    alive()
    try:
        yield alive
    finally:
        faulthandler.cancel_dump_traceback_later()
        os.close(log)


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
