"""The process that a trial runs in: its settings, errors of too little memory, a watchdog."""

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
_BENCHMARK_PIXELS = 1e9
"""Pixels of all images that a float32 trial shows: 1,000 kimg of 32 px, 16 seconds of training on an H200."""


def prepare_process(threads: int, device: str | torch.device = "cpu", float_pixels: float = 0.0) -> None:
    """Configure this process for training on `threads` threads and on `device`; the last call counts.

    cuDNN tries out its algorithms (`torch.backends.cudnn.benchmark`) for long float32 trials on a GPU only:
    it does so for each trial anew, because each has its own shapes. On an H200 the first replay came 1.4 s
    later, and training was a fifth faster in float32, 2 % (32 px) to 9 % (64 px) in bfloat16
    (docs/benchmarks/gpu.md). Its choice may differ from process to process, and with it the last bits of a
    trial.

    float_pixels: of all images that will be shown in float32, 0 = unknown or none.
    """
    on_gpu = torch.device(device).type == "cuda"
    torch.set_num_threads(max(1, threads))
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = on_gpu and float_pixels >= _BENCHMARK_PIXELS
    keep_freed_memory()
    if on_gpu and not gc.get_freeze_count():
        # Modules and functions never become garbage; scanning them took 0.1 s of each collection.
        gc.collect()
        gc.freeze()


def visible_gpus() -> int:
    """Number of GPUs that torch sees in this process; 0 where CUDA cannot be used."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def release_memory(device: torch.device) -> None:
    """Give unused memory of a GPU back, to this process's next trial or to other processes."""
    if device.type == "cuda":
        gc.collect()  # a trainer and its graphs refer to each other
        torch.cuda.empty_cache()


_OUT_OF_MEMORY = (
    "out of memory",  # cudaErrorMemoryAllocation, whichever library met it
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # a handle that found no memory
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR",  # likewise, more often than not
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device had no memory left: torch's allocator, the driver, or a library.

    Only torch's own allocator raises `torch.OutOfMemoryError`. Handles of cuBLAS and cuDNN, loaded kernels
    and CUDA graphs take memory from the driver; their failure is visible only in the text of a RuntimeError.
    Other errors of a device (an illegal address) end its context and are never taken for this one.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _OUT_OF_MEMORY)


@contextlib.contextmanager
def exit_when_silent(timeout_sec: float) -> Iterator[Callable[[], None]]:
    """Yield a function to call regularly; `timeout_sec` without a call end the process with exit code 1.

    The traceback of the hanging process goes to its stderr. For work that no other process supervises.
    """
    stderr = os.dup(2)  # sys.stderr may have been replaced

    def report_alive() -> None:
        faulthandler.dump_traceback_later(timeout_sec, exit=True, file=stderr)

    report_alive()
    try:
        yield report_alive
    finally:
        faulthandler.cancel_dump_traceback_later()
        os.close(stderr)


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, because every step allocates the same sizes again.

    Otherwise it returns large blocks to the system and faults them in again, hundreds of pages per step.
    Returns whether the C library accepted it; one that is not glibc is left as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _GIB) and mallopt(_TRIM_THRESHOLD, _GIB))
