"""Captured steps: they train like eager ones, graphs that are disabled, what stays in memory. No GPU needed.

The fake backend of these tests has all effects of CUDA graphs on the rest of the program, by calling the
step: a capture changes nothing on the device but increments Python's counters; a replay changes the device,
and Python's counters stay.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
import re
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trainers
from torch import Tensor
from trainers import same, state_of

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.search import recipes
from pipeline.training import cuda_graphs, trial
from pipeline.training.cuda_graphs import SWITCH, WARM_UP_STEPS, Step, graph_backend
from pipeline.training.events import EventKind, TrialEvent
from pipeline.training.graphed_step import GraphedStep, step_hyperparams
from pipeline.training.trainer import Trainer

CONFIGS = {
    **trainers.CONFIGS,
    "scheduled": {"schedule": "cosine", "lr_final": 0.1, "penalty": "r1", "gamma_final": 0.1, "kimg": 6},
}


class FakeBackend:
    """A backend whose captured step is the Python function itself."""

    def __init__(self, trainer: Callable[[], Trainer]) -> None:
        self.trainer = trainer
        self.warm_ups, self.captures, self.replays, self.releases = 0, 0, 0, 0

    def warm_up(self, step: Step, strict: bool) -> None:
        self.warm_ups += 1
        step()

    def capture(self, step: Step) -> Step:
        self.captures += 1
        state = self.state
        before, generators = copies(state), state.host_state()[:2]
        step()
        restore(state, before)  # the device is unchanged; Python's counters are not
        state.set_host_state((*generators, state.counts()), new_generator=False)
        return lambda: self.replay(step)

    def replay(self, step: Step) -> None:
        self.replays += 1
        counts = self.state.counts()
        step()
        self.state.add_counts([then - now for then, now in zip(counts, self.state.counts(), strict=True)])

    def release(self) -> None:
        self.releases += 1

    @property
    def state(self) -> GraphedStep:
        step = self.trainer()._graphed_step
        assert step is not None
        return step


def copies(state: GraphedStep) -> list[Tensor]:
    return [tensor.clone() for part in state.device_state().values() for tensor in part.tensors]


def restore(state: GraphedStep, values: list[Tensor]) -> None:
    tensors = [tensor for part in state.device_state().values() for tensor in part.tensors]
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


Pair = Callable[..., tuple[Trainer, Trainer, Any]]


@pytest.fixture
def pair(dataset: Dataset, tiny: Callable[..., TrialConfig]) -> Pair:
    """pair(backend_class, events, **changes): an eager trainer, one with captured steps, and its backend."""

    def make(
        backend_class: type[FakeBackend] = FakeBackend,
        events: list[TrialEvent] | None = None,
        **changes: Any,
    ) -> tuple[Trainer, Trainer, Any]:
        config = tiny(**changes)
        images, labels = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
        made: list[Trainer] = []
        backend = backend_class(lambda: made[0])
        on_event = (events if events is not None else []).append
        inputs = (config, images, labels if config.conditional else None, len(dataset.classes))
        made.append(Trainer(*inputs, backend_factory=lambda device, rng: backend, on_event=on_event))
        return Trainer(*inputs), made[0], backend

    return make


def train(trainer: Trainer, kimg: int, steps: int = 10**6) -> dict[str, float]:
    trainer.control = 0.6 if trainer.config.controller == "skip" else 0.0
    trainer.advance(kimg, should_stop=lambda: trainer.nimg // trainer.config.batch_size >= steps)
    return trainer.metrics.read()


@pytest.mark.parametrize("name", CONFIGS)
def test_captured_steps_train_like_eager_ones(pair: Pair, name: str) -> None:
    """Bit for bit: weights, optimizers, average, metrics, random generator."""
    steps = 200 if name == "plain" else 60
    eager, graphed, backend = pair(**CONFIGS[name])
    assert train(eager, 9, steps) == train(graphed, 9, steps)
    assert same(state_of(eager), state_of(graphed))
    assert torch.equal(eager.rng.get_state(), graphed.rng.get_state())
    graphs = graphed._graphed_step.graphs
    assert not graphs.disabled
    assert backend.captures == graphs.graph_count > 0
    assert backend.warm_ups >= WARM_UP_STEPS * graphs.graph_count
    assert backend.replays >= steps - (WARM_UP_STEPS + 1) * len(graphs._steps_run)


@pytest.mark.parametrize("recipe", sorted(recipes.builtin_recipes()))
def test_every_recipe_can_be_captured(pair: Pair, recipe: str) -> None:
    """Bit for bit, or up to rounding where beta2 changes and therefore lies in a tensor."""
    defaults = {field.name: field.default for field in dataclasses.fields(TrialConfig)}
    changes = recipes.load_recipe(recipe).at(8, True, {**defaults, "batch_size": 32})
    changes |= {"width_g": 4, "width_d": 4, "kimg": 4, "batch_size": 32, "z_dim": 8}
    eager, graphed, backend = pair(**changes)
    means = [train(trainer, 3, 40) for trainer in (eager, graphed)]
    assert backend.replays > 10
    if step_hyperparams(graphed.config, graphed._schedule()).beta2 is None:
        assert same(state_of(eager), state_of(graphed))
    else:
        assert means[0] == pytest.approx(means[1], rel=1e-2, abs=1e-3)
        for ours, theirs in zip(eager.G.parameters(), graphed.G.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=2e-3)


def test_each_kind_of_step_is_captured_once(pair: Pair) -> None:
    """Two critics, a penalty every third step: D alone or with G, each with and without the penalty."""
    _, trainer, backend = pair(n_critic=2, penalty="r1", penalty_interval=3)
    train(trainer, 3)
    kinds = set(trainer._graphed_step.graphs._graphs)
    assert {(kind.updates_g, kind.has_penalty) for kind in kinds} == {(g, p) for g in (0, 1) for p in (0, 1)}
    assert backend.captures == len(kinds) == 4
    trainer.grad_accum_steps = 2
    train(trainer, 5)
    assert backend.captures == 8


def test_a_captured_step_reads_the_scheduled_hyperparameters(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is captured only once."""
    _, trainer, _ = pair(
        schedule="cosine", lr_final=0.0, beta2_final=0.9, penalty="r1", gamma_final=0.5, kimg=3
    )
    seen: list[tuple[float, ...]] = []
    train_step = trainer._train_step

    def recording_step(kind: Any, hyperparams: Any, *images: Any) -> None:
        seen.append(tuple(float(value) for value in vars(hyperparams).values()))
        train_step(kind, hyperparams, *images)

    monkeypatch.setattr(trainer, "_train_step", recording_step)
    train(trainer, 3)
    lr_g, lr_d, penalty, augment_p, beta2 = zip(*seen[-60:], strict=True)
    for values in (lr_g, lr_d, penalty, beta2):
        assert list(values) == sorted(values, reverse=True)
        assert values[0] > 1.05 * values[-1]
    assert set(augment_p) == {0.0}


# ---- Graphs that are disabled


class WaitingStep(FakeBackend):
    """Raises where a step would wait for the device, after the step has changed the state."""

    def warm_up(self, step: Step, strict: bool) -> None:
        super().warm_up(step, strict)
        if strict:
            raise RuntimeError("called a synchronizing CUDA operation\nwith a trace of C++")


class FailingCapture(FakeBackend):
    """A capture that fails in the middle."""

    def capture(self, step: Step) -> Step:
        step()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


class ReplayWithoutD(FakeBackend):
    """Replays without the update of D."""

    def replay(self, step: Step) -> None:
        weights = copy.deepcopy(self.trainer().D.state_dict())
        super().replay(step)
        self.trainer().D.load_state_dict(weights)


class ReplayWithOtherNoise(FakeBackend):
    """Replays with the random numbers of another step."""

    def replay(self, step: Step) -> None:
        torch.rand(4, generator=self.trainer().rng)
        super().replay(step)


@pytest.mark.parametrize(
    ("backend_class", "reason"),
    [
        (WaitingStep, "called a synchronizing CUDA operation"),
        (FailingCapture, "CUDA out of memory. Tried to allocate 2 GiB"),
        (ReplayWithoutD, "the replayed step changed the weights of D .*difference 1"),
        (ReplayWithOtherNoise, "the replayed step changed the"),
    ],
)
@pytest.mark.parametrize("name", ["lazy r1, two critics", "batch norm, conditional"])
def test_steps_that_cannot_be_captured_continue_eagerly(
    pair: Pair, backend_class: type[FakeBackend], reason: str, name: str
) -> None:
    """One event, and training as if no capture had been tried."""
    events: list[TrialEvent] = []
    eager, graphed, backend = pair(backend_class, events, **CONFIGS[name])
    generator = graphed.rng
    assert train(eager, 2, 32) == train(graphed, 2, 32)
    assert same(state_of(eager), state_of(graphed))
    (event,) = events
    assert event.kind is EventKind.NO_CUDA_GRAPHS
    assert not event.kind.is_failure
    assert re.search(reason, event.text)
    assert "\n" not in event.text
    assert graphed._graphed_step.graphs.disabled
    assert not graphed.uses_cuda_graphs
    assert graphed.rng is not generator  # a failed capture leaves its generator unusable
    assert backend.releases > 0


def test_an_eager_step_without_memory_raises_after_graphs_are_disabled(pair: Pair) -> None:
    """The graphs are disabled, and the same step is tried without; its own error goes to the trial."""

    class Full(FakeBackend):
        def warm_up(self, step: Step, strict: bool) -> None:
            if strict:
                raise torch.OutOfMemoryError("full")
            super().warm_up(step, strict)

    events: list[TrialEvent] = []
    _, trainer, _ = pair(Full, events)

    def raise_if_disabled(module: Any, inputs: Any) -> None:
        if events:
            raise torch.OutOfMemoryError("still full")

    trainer.D.register_forward_pre_hook(raise_if_disabled)
    with pytest.raises(torch.OutOfMemoryError, match="still full"):
        train(trainer, 1)
    assert [event.kind for event in events] == [EventKind.NO_CUDA_GRAPHS]


def test_memory_that_is_short_for_a_later_kind_of_step_disables_only_the_graphs(pair: Pair) -> None:
    """The graphs of other kinds take the memory of a kind that comes late; batches are not split."""

    class Crowded(FakeBackend):
        def warm_up(self, step: Step, strict: bool) -> None:
            super().warm_up(step, strict)
            if self.captures and not self.releases:
                raise torch.OutOfMemoryError("CUDA out of memory beside the graphs")

    events: list[TrialEvent] = []
    eager, graphed, backend = pair(Crowded, events, penalty="r1", penalty_interval=16)
    assert train(eager, 2, 60) == train(graphed, 2, 60)
    assert same(state_of(eager), state_of(graphed))
    (event,) = events
    assert event.kind is EventKind.NO_CUDA_GRAPHS
    assert "CUDA out of memory beside the graphs" in event.text
    assert backend.captures == 1
    assert graphed.grad_accum_steps == 1


def test_the_eager_step_before_a_capture_runs_on_the_stream_of_the_warm_up(pair: Pair) -> None:
    """On another stream, tensors that a network keeps of it would be pulled into the capture."""
    _, trainer, backend = pair()
    train(trainer, 1, 20)
    assert backend.warm_ups == WARM_UP_STEPS + 1
    assert backend.captures == 1


def test_a_rejected_graph_is_freed_before_the_state_is_restored(pair: Pair) -> None:
    """Its memory is needed then."""
    replays: list[Any] = []

    class Watched(ReplayWithoutD):
        def capture(self, step: Step) -> Step:
            replay = super().capture(step)
            replays.append(weakref.ref(replay))
            return replay

        def release(self) -> None:
            super().release()
            assert replays[0]() is None

    _, trainer, backend = pair(Watched, [])
    train(trainer, 1, 20)
    assert backend.releases == 1


def test_no_two_backends_share_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream of a deleted backend is used again."""
    made: list[Any] = []
    monkeypatch.setattr(cuda_graphs, "_FREE_STREAMS", {})
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(object()) or made[-1])
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
    device = torch.device("cuda:0")
    first, second = (cuda_graphs.CudaGraphBackend(device, torch.Generator) for _ in range(2))
    assert first._stream is not second._stream
    stream = first._stream
    del first
    third = cuda_graphs.CudaGraphBackend(device, torch.Generator)
    assert third._stream is stream
    assert third._stream is not second._stream
    assert len(made) == 2


def test_generators_are_registered_where_torch_needs_it() -> None:
    class OldGraph:
        def register_generator_state(self, generator: torch.Generator) -> None:
            warnings.warn("deprecated, and now a no-op", FutureWarning, stacklevel=1)
            self.registered = generator

    generator, old = torch.Generator(), OldGraph()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cuda_graphs._register_generator(old, generator)  # type: ignore[arg-type]
        cuda_graphs._register_generator(object(), generator)  # type: ignore[arg-type]
    assert old.registered is generator


@pytest.mark.parametrize(
    ("value", "graphs"), [(None, cuda_graphs.DEFAULT == "1"), ("1", True), ("0", False), ("", False)]
)
def test_an_environment_variable_switches_graphs(monkeypatch: Any, value: str | None, graphs: bool) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(SWITCH, value)
    monkeypatch.setattr(cuda_graphs, "CudaGraphBackend", lambda *_: "a backend")
    assert graph_backend(torch.device("cuda:0"), torch.Generator) == ("a backend" if graphs else None)
    assert graph_backend(torch.device("cpu"), torch.Generator) is None


def test_nan_weights_do_not_disable_graphs(pair: Pair) -> None:
    """A NaN stays NaN with and without a replay; the end of the tick reports it."""
    events: list[TrialEvent] = []
    _, trainer, backend = pair(events=events)
    with torch.no_grad():
        next(trainer.D.parameters())[0] = float("nan")
    assert math.isnan(train(trainer, 1)["loss_d"])
    assert backend.replays > 20
    assert not events


# ---- Checkpoints


@pytest.mark.parametrize("name", ["lazy r1, two critics", "spectral norm"])
def test_checkpoints_work_with_and_without_graphs(pair: Pair, name: str) -> None:
    eager, graphed, backend = pair(**CONFIGS[name])
    whole, _, _ = pair(**CONFIGS[name])
    train(graphed, 1)
    eager.load_state_dict(copy.deepcopy(graphed.state_dict()))
    train(eager, 2)
    graphed.load_state_dict(copy.deepcopy(eager.state_dict()))
    assert graphed._graphed_step.graphs.graph_count == 0  # their tensors were replaced
    train(graphed, 3)
    for tick in (1, 2, 3):
        train(whole, tick)
    assert same(state_of(graphed), state_of(whole))
    assert backend.replays > 20


def test_optimizer_states_hold_no_trace_of_a_capture(pair: Pair) -> None:
    """The learning rate is a number, not a tensor, and `capturable` is off."""
    eager, graphed, _ = pair()
    for trainer in (eager, graphed):
        train(trainer, 1)
    ours, theirs = (trainer.opt_d.state_dict()["param_groups"][0] for trainer in (eager, graphed))
    assert ours == theirs
    assert type(theirs["lr"]) is float
    assert theirs["capturable"] is False


def test_dropped_graphs_are_captured_again(pair: Pair) -> None:
    _, trainer, backend = pair()
    train(trainer, 1)
    trainer.drop_graphs()
    assert trainer._graphed_step.graphs.graph_count == 0
    train(trainer, 2)
    assert backend.captures == 2


@pytest.mark.parametrize("ticks", [1, 2])
def test_no_trainer_is_referenced_when_a_trial_releases_memory(
    dataset: Dataset, tiny: Any, evaluator: Any, tmp_path: Path, monkeypatch: Any, ticks: int
) -> None:
    """Whether it was trained to its end or stopped before."""
    made: list[weakref.ref[Trainer]] = []
    alive: list[bool] = []

    class Watched(Trainer):
        def __init__(self, *args: Any, **options: Any) -> None:
            backend = FakeBackend(lambda: self)
            super().__init__(*args, **options, backend_factory=lambda device, rng: backend)
            made.append(weakref.ref(self))

    def release(device: torch.device) -> None:
        gc.collect()
        alive.extend(trainer() is not None for trainer in made)

    monkeypatch.setattr(trial, "Trainer", Watched)
    monkeypatch.setattr(trial, "release_memory", release)
    records = trial.run_trial(tiny(), dataset, evaluator, tmp_path)
    for _ in range(ticks):
        next(records)
    if ticks == 2:
        assert next(records, None) is None
    del records
    assert alive == [False]


def test_a_cpu_has_no_graphs(make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    assert graph_backend(torch.device("cpu"), torch.Generator) is None
    assert make_trainer()._graphed_step is None
    monkeypatch.setenv(SWITCH, "0")
    assert graph_backend(torch.device("cuda"), torch.Generator) is None
