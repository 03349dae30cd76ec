"""Work that runs while training continues: in a thread of its own and, on a GPU, on a stream of its own.

Training by CUDA graphs leaves Python idle, and most of a GPU's processors, so a tick can be measured and
saved while the next one trains. The work holds `pipeline.metrics.precision.torch_state_lock`: a step that is
not a replay waits for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from pipeline.metrics.precision import torch_state_lock

T = TypeVar("T")


def run_overlapped(work: Callable[[], T], device: torch.device) -> Future[T]:
    """Start work that reads what the current stream of a GPU has written so far; one piece of work at a time.

    The future is done when everything that the work has launched is done. `Future.result` raises what the
    work raises. On a CPU, which training keeps busy, the work is done before this returns.
    """
    if device.type != "cuda":
        return _run_now(work)
    written = torch.cuda.current_stream(device).record_event()
    threads = torch.get_num_threads()

    def run() -> T:
        torch.set_num_threads(threads)  # a setting of each Python thread
        stream = _side_stream(device)
        with torch_state_lock, torch.cuda.device(device), torch.cuda.stream(stream):
            stream.wait_event(written)
            try:
                return work()
            finally:
                stream.synchronize()

    return _executor().submit(run)


def cloned_state(tree: Any) -> Any:
    """A nested state of dictionaries and lists with a copy of each of its tensors."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: cloned_state(value) for key, value in tree.items()}
    return [cloned_state(value) for value in tree] if isinstance(tree, list) else tree


def _run_now(work: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
    return future


@functools.cache
def _executor() -> ThreadPoolExecutor:
    """One thread for all trials of a process: libraries keep handles for every calling thread."""
    return ThreadPoolExecutor(1, "overlapped-work")


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all trials of a process: libraries keep workspaces for every stream, too."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
