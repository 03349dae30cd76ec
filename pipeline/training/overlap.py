"""Work that is done beside training: in a thread, and on a GPU's stream, of its own.

Owns: the thread, the stream, their order against training, copies of what training would change meanwhile.
Refuses: knowing what the work is.

Training by CUDA graphs leaves Python idle, and most of a GPU's processors, so a tick can be measured and
saved while the next one trains. The work holds `process.exclusive`: a step that is not replayed waits for it.
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
    """Begin work that reads what the present stream of a GPU has written by now; one at a time.

    The future is done when all that the work launched is. What it raises, `Future.result` raises. On a CPU,
    which training keeps busy, the work is done at once.
    """
    if device.type != "cuda":
        return _done(work)
    written = torch.cuda.current_stream(device).record_event()
    threads = torch.get_num_threads()

    def act() -> T:
        torch.set_num_threads(threads)  # holds for one thread of Python's
        stream = _stream_on(device)
        with torch_state_lock, torch.cuda.device(device), torch.cuda.stream(stream):
            stream.wait_event(written)
            try:
                return work()
            finally:
                stream.synchronize()

    return _thread().submit(act)


def cloned_state(tree: Any) -> Any:
    """Dictionaries and lists with a copy of each of their tensors."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {key: cloned_state(value) for key, value in tree.items()}
    return [cloned_state(value) for value in tree] if isinstance(tree, list) else tree


def _done(work: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
    return future


@functools.cache
def _thread() -> ThreadPoolExecutor:
    """One for all trials of a process: libraries keep handles for every thread that they have met."""
    return ThreadPoolExecutor(1, "beside-training")


@functools.cache
def _stream_on(device: torch.device) -> torch.cuda.Stream:
    """One for all trials of a process, whose workspaces libraries keep as well."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
