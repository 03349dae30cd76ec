"""A step that is recorded as a CUDA graph after a few turns, and replayed then.

Owns: `Replays` (when a step is rehearsed, recorded, proved and replayed, and when all that is given up) and
`CudaRecorder` (how). Refuses: knowing what the step does.

On a GPU the small kernels of a GAN end sooner than Python launches the next ones; a graph launches them all
at once. It repeats the very kernels at the very addresses, so each *kind* of step has a graph of its own, and
all that changes from step to step lies in tensors that stay where they are. The graphs of one step share
their memory: none leaves anything there that another reads.

A graph has to prove itself: right after it was recorded, one replay is compared with the same step taken
without it from the same state. If they differ, if a step waits for the device (networks that look at their
data), or if memory is short, the state is put right, a warning says why, and the steps go on without graphs.
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

from pipeline.metrics.precision import torch_state_lock
from pipeline.training.events import EventKind, OnEvent, TrialEvent
from pipeline.training.process import release_memory

SWITCH = "GANSWEEP_CUDA_GRAPHS"
"""Environment variable: 1 = steps become CUDA graphs on a GPU, 0 = they do not; without it `DEFAULT`."""

DEFAULT = "1"
"""On, since benchmarks/gpu_check.py passed on a GPU (docs/gpu_check.md says on which, and when)."""

WARM_UP = 3
"""Turns of each kind before it is recorded: libraries load, choose algorithms and take their workspaces."""

_ROUNDING = 1e-7  # of the size of what moves: half a bit or so in each number

Step = Callable[[], None]


@dataclass(frozen=True)
class StatePart:
    """Tensors that a step moves in place.

    tolerance: of ||replayed - taken|| / ||taken||, both being what one step changed in all of them. Not 0:
    atomic sums round differently each time. More for weights: where a gradient is 0 but for rounding (a
    bias before a batch norm), Adam makes a whole step of it.
    """

    tensors: Sequence[Tensor]
    tolerance: float


class GraphedState(Protocol):
    """What a step moves."""

    def parts(self) -> Mapping[str, StatePart]:
        """On the device, by name."""

    def on_host(self) -> Any:
        """What else it moves: states of generators, counters."""

    def set_host(self, state: Any, fresh: bool) -> None:
        """Put that back (into fresh generators) and forget all gradients."""

    def counts(self) -> list[int]:
        """What Python counts in a step, and a replay would not."""

    def gain(self, counts: list[int]) -> None:
        """Count that much more."""


class Recorder(Protocol):
    """How a step is rehearsed and recorded; tests have one that needs no GPU."""

    def rehearse(self, step: Step, strict: bool) -> None:
        """Take the step where it will be recorded; strict: raise where it waits for the device."""

    def record(self, step: Step) -> Step:
        """Return what replays the step; nothing on the device moves by recording."""

    def release(self) -> None:
        """All graphs were dropped: give their memory back."""


@dataclass(frozen=True)
class _Snapshot:
    held: dict[str, list[Tensor]]
    host: Any


class GraphCache:
    """Takes a step, by replay where it can. All steps of a kind must have the same kernels and shapes."""

    def __init__(self, recorder: Recorder, stage: GraphedState, on_event: OnEvent) -> None:
        self._recorder, self._stage, self._on_event = recorder, stage, on_event
        self._turns: dict[Hashable, int] = {}
        self._replays: dict[Hashable, tuple[Step, list[int]]] = {}
        self.given_up = False

    @property
    def kinds(self) -> int:
        """How many kinds of step are replayed by now."""
        return len(self._replays)

    def take(self, kind: Hashable, recorded: Step, plain: Step) -> None:
        """Take one step. recorded: from static tensors, to be replayed. plain: the same as it comes."""
        turn = self._turns[kind] = self._turns.get(kind, 0) + 1
        if kind in self._replays:
            replay, gained = self._replays[kind]
            replay()
            self._stage.gain(gained)
            return
        with torch_state_lock:
            if self.given_up:
                plain()
            elif turn <= WARM_UP:
                self._rehearse(turn, recorded, plain)
            else:
                self._record(kind, recorded, plain)

    def forget(self) -> None:
        """Drop all graphs, since the tensors that they point to are no more. They are recorded anew."""
        self._turns.clear()
        self._replays.clear()
        self._recorder.release()

    def _rehearse(self, turn: int, recorded: Step, plain: Step) -> None:
        strict = turn > 1  # what libraries do once may wait for the device
        if strict or self._replays:  # the memory of graphs may leave too little even for a first step
            self._attempt(recorded, strict, plain)
        else:
            self._recorder.rehearse(recorded, strict)

    def _record(self, kind: Hashable, recorded: Step, plain: Step) -> None:
        # On the stream of the warm-up steps: a tensor that a network keeps from its last step (its features)
        # would bring the default stream into the capture.
        before = self._attempt(plain, False, plain)
        if before is None:
            return
        after, replay = self._snapshot(), None
        try:
            self._restore(before)
            counts = self._stage.counts()
            replay = self._recorder.record(recorded)
            gained = [now - then for now, then in zip(self._stage.counts(), counts, strict=True)]
            self._restore(before)
            replay()
            self._stage.gain(gained)
            why = self._difference(before, after)
        except Exception as error:
            why = _first_line(error)
        if replay is not None and not why:
            self._replays[kind] = replay, gained
            return
        replay = None  # its memory is needed now
        self._go_back(after, why)

    def _attempt(self, step: Step, strict: bool, plain: Step) -> _Snapshot | None:
        """Run a step that may fail, and return the state before it.

        None where it failed: then graphs are given up, and `plain` was run from that state instead.
        """
        before, why = self._snapshot(), ""
        try:
            self._recorder.rehearse(step, strict)
        except Exception as error:  # the user's networks may raise anything; so will `plain`, if it is theirs
            why = _first_line(error)
        if not why:
            return before
        # Outside of the handler, which would keep the failed step's memory alive.
        self._go_back(before, why)
        del before
        plain()
        return None

    def _go_back(self, state: _Snapshot, why: str) -> None:
        """To that state, and on without graphs."""
        self.given_up = True
        self._restore(state)
        self.forget()
        self._stage.set_host(state.host, fresh=True)
        self._on_event(TrialEvent(EventKind.NO_CUDA_GRAPHS, f"training without CUDA graphs: {why}"))

    def _snapshot(self) -> _Snapshot:
        parts = self._stage.parts()
        held = {name: [tensor.clone() for tensor in part.tensors] for name, part in parts.items()}
        return _Snapshot(held, self._stage.on_host())

    def _restore(self, state: _Snapshot) -> None:
        for name, part in self._stage.parts().items():
            for tensor, value in zip(part.tensors, state.held[name], strict=True):
                tensor.copy_(value)
        self._stage.set_host(state.host, fresh=False)

    def _difference(self, before: _Snapshot, after: _Snapshot) -> str:
        """In what the replay that was just done differs from the step `before` to `after`; "" = nothing."""
        for name, part in self._stage.parts().items():
            taken = _distance(after.held[name], before.held[name])
            off = _distance(part.tensors, after.held[name])
            rounding = _ROUNDING * _distance(part.tensors, None)
            if not off <= part.tolerance * taken + rounding:
                return (
                    f"a replayed step moved the {name} by {off / max(taken, 1e-30):.2g} of a step elsewhere"
                )
        return ""


class CudaRecorder:
    """CUDA graphs, recorded on a stream beside the present one, in a memory pool of their own.

    Args:
        device: a GPU.
        generator: gives the generator that the step draws from. It may be seeded between replays.
    """

    def __init__(self, device: torch.device, generator: Callable[[], torch.Generator]) -> None:
        self._device, self._generator = device, generator
        self._stream = _borrow_stream(device)
        weakref.finalize(self, _FREE.setdefault(device, []).append, self._stream)
        self._pool = torch.cuda.graph_pool_handle()

    def rehearse(self, step: Step, strict: bool) -> None:
        """Take the step on the stream of the graphs."""
        present = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(present)
        try:
            with refusing_waits() if strict else contextlib.nullcontext(), torch.cuda.stream(self._stream):
                step()
        finally:
            present.wait_stream(self._stream)

    def record(self, step: Step) -> Step:
        """Capture the step. Other threads may go on using the device meanwhile."""
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()  # what eager steps have cached, the graph will need
        graph = torch.cuda.CUDAGraph()
        _register(graph, self._generator())
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                step()
                graph.capture_end()
            except BaseException:
                self._abandon(graph)
                raise
        return graph.replay

    def release(self) -> None:
        """Free the graphs' memory; a pool whose last graph is gone cannot be recorded into again."""
        self._pool = torch.cuda.graph_pool_handle()
        release_memory(self._device)

    def _abandon(self, graph: torch.cuda.CUDAGraph) -> None:
        """End a capture that failed, so that allocator and generators can be used again."""
        try:
            graph.capture_end()
        except RuntimeError:  # an invalid capture ends by this, but leaves the allocator recording
            # torch 2.14 has ended the pool by itself: the first call raises, and `graph` releases the pool.
            with contextlib.suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(self._stream.device_index, self._pool)
                torch._C._cuda_releasePool(self._stream.device_index, self._pool)
            with contextlib.suppress(RuntimeError):  # and torch's own generator; a whole capture frees it
                mend = torch.cuda.CUDAGraph()
                mend.capture_begin(capture_error_mode="thread_local")
                torch.zeros(1, device=self._device)
                mend.capture_end()


def recorder_for(device: torch.device, generator: Callable[[], torch.Generator]) -> Recorder | None:
    """The recorder of a trial on this device: None on a CPU, and where `SWITCH` is not 1."""
    if device.type != "cuda" or os.environ.get(SWITCH, DEFAULT) != "1":
        return None
    return CudaRecorder(device, generator)


@contextlib.contextmanager
def refusing_waits() -> Iterator[None]:
    """Inside, whatever waits for a GPU raises a RuntimeError; this holds for all threads."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


_FREE: dict[torch.device, list[torch.cuda.Stream]] = {}
"""Streams whose recorder is gone, with all of its graphs."""


def _borrow_stream(device: torch.device) -> torch.cuda.Stream:
    """A stream that no other recorder uses: one that was given back, else a new one.

    Graphs of one stream share cuBLAS's workspace, and the first of them to be dropped frees it under the
    others (pytorch issue 193402). A stream is used again, since libraries keep workspaces for every one.
    """
    free = _FREE.setdefault(device, [])
    return free.pop() if free else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _register(graph: torch.cuda.CUDAGraph, generator: torch.Generator) -> None:
    """Register the step's generator with a graph: needed by torch 2.11, a deprecated no-op in 2.14."""
    register = getattr(graph, "register_generator_state", None)
    if register is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            register(generator)


def _distance(ours: Sequence[Tensor], theirs: Sequence[Tensor] | None) -> float:
    """||ours - theirs|| over all tensors; a NaN is as far as 0, so that equal wrecks are equal."""
    total = torch.zeros((), dtype=torch.float64)
    for place, tensor in enumerate(ours):
        change = tensor.double().nan_to_num()
        if theirs is not None:
            change = change - theirs[place].double().nan_to_num()
        total += change.square().sum().cpu()
    return float(total.sqrt())


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
