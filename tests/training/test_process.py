"""Settings of a process, its watchdog, and errors of too little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.training import process

HANGS = """
import time
from pipeline.training.process import exit_when_silent
with exit_when_silent(1.0) as report_alive:
    print("inside", flush=True)
    time.sleep(60)
"""


def test_a_silent_process_ends_with_the_traceback_of_where_it_hung() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", HANGS], cwd=root, capture_output=True, text=True, timeout=110
    )
    assert (done.returncode, done.stdout) == (1, "inside\n")
    assert "Timeout" in done.stderr
    assert "line 6 in <module>" in done.stderr


REPORTS = """
import time
from pipeline.training.process import exit_when_silent
with exit_when_silent(2.0) as report_alive:
    for _ in range(3):
        time.sleep(1.0)
        report_alive()
print("still here", flush=True)
time.sleep(2.4)
print("and after", flush=True)
"""


def test_a_process_that_reports_is_not_ended_and_not_watched_afterwards() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", REPORTS], cwd=root, capture_output=True, text=True, timeout=110
    )
    assert (done.returncode, done.stdout) == (0, "still here\nand after\n")
    assert "Timeout" not in done.stderr


@pytest.mark.parametrize(
    ("device", "float_pixels", "benchmarks"),
    [("cpu", 1e12, False), ("cuda", 0.0, False), ("cuda", 1e12, True)],
)
def test_cudnn_benchmarks_for_long_trials_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, float_pixels: float, benchmarks: bool
) -> None:
    frozen = []
    monkeypatch.setattr(process.gc, "freeze", lambda: frozen.append(True))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not benchmarks)
    process.prepare_process(1, device, float_pixels)
    assert torch.backends.cudnn.benchmark is benchmarks
    assert bool(frozen) is (device == "cuda")


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), False),
        (MemoryError("out of memory"), False),  # the host's
        (ValueError("out of memory"), False),
    ],
)
def test_is_out_of_memory(error: BaseException, is_memory: bool) -> None:
    assert process.is_out_of_memory(error) is is_memory
