"""Training steps captured as CUDA graphs after a few eager steps, and replayed from then on.

`GraphCache` decides when a step is run eagerly, captured, checked and replayed; `CudaGraphBackend` does it
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). Neither knows what the step does.

On a GPU the small kernels of a GAN end sooner than Python launches the next ones; a graph launches them all
at once. It repeats the same kernels at the same addresses, so each *kind* of step has a graph of its own, and
all that changes from step to step lies in tensors that stay where they are. The graphs of one trainer share a
memory pool: none leaves anything there that another reads.

A graph is checked before it is used: right after the capture, one replay is compared with the same step run
eagerly from the same state. If they differ, if a step waits for the device (networks whose control flow
depends on their data), or if memory is short, the state is restored, an event says why, and training
continues without CUDA graphs.
"""

from __future__ import annotations

import contextlib
import os
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.errors import first_line
from pipeline.metrics.precision import torch_state_lock
from pipeline.training._compat import drop_pool
from pipeline.training.events import EventKind, OnEvent, TrialEvent
from pipeline.training.process import release_memory

SWITCH = "GANSWEEP_CUDA_GRAPHS"
"""Environment variable: 1 = steps become CUDA graphs on a GPU, 0 = they do not; unset = `DEFAULT`."""
DEFAULT = "1"
"""On, since benchmarks/gpu_check.py passed on a GPU (docs/benchmarks/gpu.md has the card and the date)."""
WARM_UP_STEPS = 3
"""Steps of each kind before its capture: libraries load, choose algorithms and allocate workspaces."""

_ROUNDING = 1e-7  # relative to the norm of the state: about half a bit in each number

Step = Callable[[], None]


@dataclass(frozen=True)
class StatePart:
    """Tensors that a step changes in place.

    tolerance: the largest ||replayed - eager|| / ||eager||, where both are the change that one step makes to
    all of the tensors. Not 0, because atomic sums round differently each time. Larger for weights: where a
    gradient is 0 up to rounding (a bias before a batch norm), Adam still makes a full step of it.
    """

    tensors: Sequence[Tensor]
    tolerance: float


class GraphedState(Protocol):
    """What a step changes."""

    def device_state(self) -> Mapping[str, StatePart]:
        """Tensors on the device, by name."""

    def host_state(self) -> Any:
        """What else a step changes: states of random generators, counters."""

    def set_host_state(self, state: Any, new_generator: bool) -> None:
        """Restore `host_state` (with a new generator, if wanted) and drop all gradients."""

    def counts(self) -> list[int]:
        """Counters that a step increments in Python, which a replay does not."""

    def add_counts(self, counts: list[int]) -> None:
        """Increment the counters."""


class GraphBackend(Protocol):
    """How a step is warmed up and captured; tests have a backend that needs no GPU."""

    def warm_up(self, step: Step, strict: bool) -> None:
        """Run the step on the stream of the graphs; strict: raise RuntimeError where it waits for the GPU."""

    def capture(self, step: Step) -> Step:
        """Return a function that replays the step; the capture itself changes nothing on the device."""

    def release(self) -> None:
        """Free the memory of the graphs; the caller has dropped all of them."""


@dataclass(frozen=True)
class _Snapshot:
    device: dict[str, list[Tensor]]
    host: Any


class GraphCache:
    """Runs steps, by replay where a graph of their kind exists.

    All steps of one kind must launch the same kernels on the same shapes. `on_event` receives one event if
    graphs are disabled.
    """

    def __init__(self, backend: GraphBackend, state: GraphedState, on_event: OnEvent) -> None:
        self._backend, self._state, self._on_event = backend, state, on_event
        self._steps_run: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, tuple[Step, list[int]]] = {}
        self.disabled = False

    @property
    def graph_count(self) -> int:
        """For how many kinds of step a graph exists."""
        return len(self._graphs)

    def run(self, kind: Hashable, graphed: Step, eager: Step) -> None:
        """Run one step. graphed: its inputs are static tensors, to be captured. eager: they are not."""
        steps = self._steps_run[kind] = self._steps_run.get(kind, 0) + 1
        if kind in self._graphs:
            replay, counts = self._graphs[kind]
            replay()
            self._state.add_counts(counts)
            return
        with torch_state_lock:
            if self.disabled:
                eager()
            elif steps <= WARM_UP_STEPS:
                self._warm_up(steps, graphed, eager)
            else:
                self._capture(kind, graphed, eager)

    def clear(self) -> None:
        """Drop all graphs, because the tensors that they read are replaced. They are captured again."""
        self._steps_run.clear()
        self._graphs.clear()
        self._backend.release()

    def _warm_up(self, steps: int, graphed: Step, eager: Step) -> None:
        strict = steps > 1  # what libraries do once may wait for the device
        if strict or self._graphs:  # the memory of other graphs may leave too little even for a first step
            self._try_step(graphed, strict, eager)
        else:
            self._backend.warm_up(graphed, strict)

    def _capture(self, kind: Hashable, graphed: Step, eager: Step) -> None:
        """Run the step eagerly, capture it, and keep the graph if its replay has the same effect."""
        # The eager step runs on the stream of the warm-up steps: a tensor that a network keeps from its last
        # step (such as its features) would bring the default stream into the capture.
        before = self._try_step(eager, False, eager)
        if before is None:
            return
        after, replay = self._snapshot(), None
        try:
            self._restore(before)
            counts = self._state.counts()
            replay = self._backend.capture(graphed)
            added = [now - then for now, then in zip(self._state.counts(), counts, strict=True)]
            self._restore(before)
            replay()
            self._state.add_counts(added)
            reason = self._difference(before, after)
        except Exception as error:
            reason = first_line(error)
        if replay is not None and not reason:
            self._graphs[kind] = replay, added
            return
        replay = None  # its memory is needed now
        self._disable(after, reason)

    def _try_step(self, step: Step, strict: bool, eager: Step) -> _Snapshot | None:
        """Run a step that may fail, and return the state before it.

        None where it failed: then graphs are disabled, and `eager` was run from that state instead.
        """
        before, reason = self._snapshot(), ""
        try:
            self._backend.warm_up(step, strict)
        except Exception as error:  # custom networks may raise anything; `eager` raises it again if they do
            reason = first_line(error)
        if not reason:
            return before
        # Outside of the handler, which would keep the failed step's memory alive.
        self._disable(before, reason)
        del before
        eager()
        return None

    def _disable(self, state: _Snapshot, reason: str) -> None:
        """Restore the state and continue without graphs."""
        self.disabled = True
        self._restore(state)
        self.clear()
        self._state.set_host_state(state.host, new_generator=True)
        self._on_event(TrialEvent(EventKind.NO_CUDA_GRAPHS, f"training without CUDA graphs: {reason}"))

    def _snapshot(self) -> _Snapshot:
        parts = self._state.device_state()
        copies = {name: [tensor.clone() for tensor in part.tensors] for name, part in parts.items()}
        return _Snapshot(copies, self._state.host_state())

    def _restore(self, state: _Snapshot) -> None:
        for name, part in self._state.device_state().items():
            for tensor, value in zip(part.tensors, state.device[name], strict=True):
                tensor.copy_(value)
        self._state.set_host_state(state.host, new_generator=False)

    def _difference(self, before: _Snapshot, after: _Snapshot) -> str:
        """How the replay just run differs from the eager step `before` -> `after`; "" = it does not."""
        for name, part in self._state.device_state().items():
            change = _distance(after.device[name], before.device[name])
            error = _distance(part.tensors, after.device[name])
            rounding = _ROUNDING * _distance(part.tensors, None)
            if not error <= part.tolerance * change + rounding:
                return (
                    f"the replayed step changed the {name} differently from the eager step "
                    f"(relative difference {error / max(change, 1e-30):.2g})"
                )
        return ""


class CudaGraphBackend:
    """CUDA graphs of torch, captured on a side stream into a private memory pool.

    generator: returns the generator that the step draws from. It may be seeded between replays.
    """

    def __init__(self, device: torch.device, generator: Callable[[], torch.Generator]) -> None:
        self._device, self._generator = device, generator
        self._stream = _take_stream(device)
        weakref.finalize(self, _FREE_STREAMS.setdefault(device, []).append, self._stream)
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, step: Step, strict: bool) -> None:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with (
                forbid_device_sync() if strict else contextlib.nullcontext(),
                torch.cuda.stream(self._stream),
            ):
                step()
        finally:
            current.wait_stream(self._stream)

    def capture(self, step: Step) -> Step:
        """Capture the step. Other threads may continue to use the device meanwhile."""
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()  # the graph needs the memory that eager steps have cached
        graph = torch.cuda.CUDAGraph()
        _register_generator(graph, self._generator())
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                step()
                graph.capture_end()
            except BaseException:
                self._abort_capture(graph)
                raise
        return graph.replay

    def release(self) -> None:
        # A pool whose last graph is gone cannot be captured into again.
        self._pool = torch.cuda.graph_pool_handle()
        release_memory(self._device)

    def _abort_capture(self, graph: torch.cuda.CUDAGraph) -> None:
        """End a capture that failed, so that allocator and generators can be used again."""
        try:
            graph.capture_end()
        except RuntimeError:  # this ends an invalid capture, but the allocator still fills the pool
            # torch 2.14 has ended the pool by itself: the first call raises, and `graph` releases the pool.
            with contextlib.suppress(RuntimeError):
                drop_pool(self._stream.device_index, self._pool)
            # torch's default generator is still in capture mode; a complete capture ends that.
            with contextlib.suppress(RuntimeError):
                repair = torch.cuda.CUDAGraph()
                repair.capture_begin(capture_error_mode="thread_local")
                torch.zeros(1, device=self._device)
                repair.capture_end()


def graph_backend(device: torch.device, generator: Callable[[], torch.Generator]) -> GraphBackend | None:
    """The backend of a trial on this device: None on a CPU, and where `SWITCH` is not 1."""
    if device.type != "cuda" or os.environ.get(SWITCH, DEFAULT) != "1":
        return None
    return CudaGraphBackend(device, generator)


@contextlib.contextmanager
def forbid_device_sync() -> Iterator[None]:
    """Inside, whatever waits for a GPU raises a RuntimeError; this holds for all threads."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


_FREE_STREAMS: dict[torch.device, list[torch.cuda.Stream]] = {}
"""Streams whose backend, with all of its graphs, has been deleted."""


def _take_stream(device: torch.device) -> torch.cuda.Stream:
    """A stream that no other backend uses: a free one, else a new one.

    Graphs of one stream share cuBLAS's workspace, and the first of them to be dropped frees it while the
    others still use it (pytorch issue 193402). Streams are reused, because libraries keep a workspace for
    each one.
    """
    free = _FREE_STREAMS.setdefault(device, [])
    return free.pop() if free else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _register_generator(graph: torch.cuda.CUDAGraph, generator: torch.Generator) -> None:
    """Register the step's generator with a graph: needed by torch 2.11, a deprecated no-op in 2.14."""
    register = getattr(graph, "register_generator_state", None)
    if register is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            register(generator)


def _distance(ours: Sequence[Tensor], theirs: Sequence[Tensor] | None) -> float:
    """||ours - theirs|| over all tensors. NaNs count as 0, so that two NaNs compare equal."""
    total = torch.zeros((), dtype=torch.float64)
    for index, tensor in enumerate(ours):
        change = tensor.double().nan_to_num()
        if theirs is not None:
            change = change - theirs[index].double().nan_to_num()
        total += change.square().sum().cpu()
    return float(total.sqrt())
