"""What a trial wants of the process that it runs in.

Owns: threads, denormals, the allocators' memory, garbage collection, the lock of what changes the whole
process, the process' end where it hangs. Refuses: anything about one trial.
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
_MANY_PIXELS = 1e9
"""Of all images that a float32 trial shows: 1,000 kimg of 32 px, 16 seconds of training on an H200."""


def prepare_process(threads: int, device: str | torch.device = "cpu", float_pixels: float = 0.0) -> None:
    """Set this process up for training on `threads` threads and on `device`; the last call counts.

    cuDNN tries out its algorithms (`torch.backends.cudnn.benchmark`) for long float32 trials on a GPU only:
    it does so for each trial anew, whose shapes are its own. On an H200 the first replay came 1.4 s later,
    and training was a fifth faster in float32, 2 % (32 px) to 9 % (64 px) in bfloat16 (docs/gpu_check.md).
    What it chooses may differ from process to process, and with it the last bits of a trial.

    float_pixels: of all images that will be shown in float32, 0 = unknown or none.
    """
    on_gpu = torch.device(device).type == "cuda"
    torch.set_num_threads(max(1, threads))
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = on_gpu and float_pixels >= _MANY_PIXELS
    keep_freed_memory()
    if on_gpu and not gc.get_freeze_count():
        # Modules and functions never become garbage; looking at them took 0.1 s of each collection.
        gc.collect()
        gc.freeze()


def visible_gpus() -> int:
    """How many GPUs torch sees in this process; 0 where CUDA cannot be used."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def release_memory(device: torch.device) -> None:
    """Give back what nobody holds any more of a GPU, to this process' next trial or to its neighbours."""
    if device.type == "cuda":
        gc.collect()  # a trainer and its graphs refer to each other
        torch.cuda.empty_cache()


_OUT_OF_MEMORY = (
    "out of memory",  # cudaErrorMemoryAllocation, by whichever library met it
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # a handle that found no memory
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",  # likewise, more often than not
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device had no memory left: torch's allocator, the driver, or a library.

    Only torch's own allocator raises `torch.OutOfMemoryError`. Handles of cuBLAS and cuDNN, loaded kernels
    and CUDA graphs take memory of the driver's, and tell so in the text of a RuntimeError. Other errors of a
    device (an illegal address) end its context: they are never taken for this one.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _OUT_OF_MEMORY)


@contextlib.contextmanager
def exit_when_silent(bound_sec: float) -> Iterator[Callable[[], None]]:
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
