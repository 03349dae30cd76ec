"""A trainer's step as a CUDA graph: what tells one step from another, and the tensors that a step changes.

Not responsible for the step itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.config import TrialConfig
from pipeline.training.balance import MetricAccumulator
from pipeline.training.capturable_adam import make_capturable, step_with_tensor_lr
from pipeline.training.cuda_graphs import GraphBackend, GraphCache, StatePart
from pipeline.training.events import OnEvent
from pipeline.training.prefetch import Prefetcher
from pipeline.training.schedules import StepSchedule

_LINEAR_TOLERANCE = 0.1  # for state that is linear in gradients
_WEIGHT_TOLERANCE = 0.5  # for what Adam has divided by the gradients' size


@dataclass(frozen=True)
class StepKind:
    """The kind of a step: two steps of equal kind launch the same kernels.

    g_is_due: G is updated in this step, whether or not its update is skipped. grad_accum_steps: parts in
    which a batch goes through the networks.
    """

    updates_d: bool
    updates_g: bool
    g_is_due: bool = field(compare=False)  # launches nothing: the average of G is updated outside the step
    has_penalty: bool
    augmented: bool
    grad_accum_steps: int


@dataclass(frozen=True)
class StepHyperparams:
    """Hyper-parameters of a step: numbers, or scalar tensors on the device that a captured step reads anew.

    penalty: factor of the gradient penalty. augment_p: 0.0 where nothing is augmented.
    beta2: None where it never changes, so that the optimizers' own number holds.
    """

    lr_g: float | Tensor
    lr_d: float | Tensor
    penalty: float | Tensor
    augment_p: float | Tensor
    beta2: float | Tensor | None = None

    @property
    def is_graphed(self) -> bool:
        """Whether the step will be replayed, so that time spent in Python does not matter."""
        return isinstance(self.lr_d, Tensor)

    def step(self, optimizer: torch.optim.Adam, lr: float | Tensor) -> None:
        """Update an optimizer's weights by their present gradients, at learning rate `lr` on every device."""
        if isinstance(lr, Tensor):
            step_with_tensor_lr(optimizer, lr, self.beta2 if isinstance(self.beta2, Tensor) else None)
            return
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()


def step_kind(
    config: TrialConfig, schedule: StepSchedule, nimg: int, d_steps: int, grad_accum_steps: int
) -> StepKind:
    """The kind of the step that ends at `nimg`: D trains alone during the warm-up, then more often than G.

    d_steps: updates of D before it.
    """
    warm = nimg > config.d_warmup_kimg * 1000
    g_is_due = warm and nimg // config.batch_size % config.n_critic == 0
    penalised = config.penalty != "none" and schedule.gamma > 0 and not schedule.skip_d
    return StepKind(
        updates_d=not schedule.skip_d,
        updates_g=g_is_due and not schedule.skip_g,
        g_is_due=g_is_due,
        has_penalty=penalised and d_steps % config.penalty_interval == 0,
        augmented=schedule.augment_p > 0,
        grad_accum_steps=grad_accum_steps,
    )


def step_hyperparams(config: TrialConfig, schedule: StepSchedule) -> StepHyperparams:
    """The hyper-parameters of a step, as numbers."""
    beta2 = schedule.beta2 if config.schedule == "cosine" and config.beta2_final else None
    penalty = schedule.gamma * config.penalty_interval
    return StepHyperparams(schedule.lr_g, schedule.lr_d, penalty, schedule.augment_p, beta2)


TrainStep = Callable[[StepKind, StepHyperparams, Tensor, Tensor | None], None]
"""One step on reals float32 (N,C,H,W) and their labels (N,)."""

BackendFactory = Callable[[torch.device, Callable[[], torch.Generator]], GraphBackend | None]
"""(device, getter of the generator that steps draw from) -> a backend, or None for eager steps only."""


class TrainerParts(Protocol):
    """The parts of a trainer that a step changes or draws from."""

    @property
    def G(self) -> nn.Module: ...
    @property
    def D(self) -> nn.Module: ...

    opt_g: torch.optim.Adam
    opt_d: torch.optim.Adam
    metrics: MetricAccumulator
    rng: torch.Generator
    device: torch.device


class GraphedStep:
    """Runs a trainer's steps, by replay where a graph of their kind was captured."""

    def __init__(
        self, trainer: TrainerParts, prefetcher: Prefetcher, backend: GraphBackend, on_event: OnEvent
    ) -> None:
        self._trainer, self._prefetcher = trainer, prefetcher
        self.graphs = GraphCache(backend, self, on_event)
        self._on_device = {
            hyperparam.name: torch.zeros((), device=trainer.device) for hyperparam in fields(StepHyperparams)
        }
        self._last_set: dict[str, float] = {}

    def run(self, kind: StepKind, hyperparams: StepHyperparams, train_step: TrainStep) -> None:
        """One step on the reals that the prefetcher has loaded."""
        on_device = self._copy_to_device(hyperparams, kind)

        def graphed() -> None:
            train_step(kind, on_device, self._prefetcher.reals(), self._prefetcher.labels)

        def eager() -> None:
            train_step(kind, hyperparams, self._prefetcher.reals(), self._prefetcher.labels)

        self.graphs.run(kind, graphed, eager)

    def prepare_optimizers(self) -> None:
        """Before a run of steps: create the optimizers' state, which a captured step must find in place."""
        make_capturable(self._trainer.opt_g)
        make_capturable(self._trainer.opt_d)

    def _copy_to_device(self, hyperparams: StepHyperparams, kind: StepKind) -> StepHyperparams:
        """The hyper-parameters as scalars on the device, filled without a transfer where they changed."""
        for name, value in vars(hyperparams).items():
            if value is not None and self._last_set.get(name) != value:
                self._on_device[name].fill_(value)
                self._last_set[name] = value
        return StepHyperparams(
            lr_g=self._on_device["lr_g"],
            lr_d=self._on_device["lr_d"],
            penalty=self._on_device["penalty"],
            augment_p=self._on_device["augment_p"] if kind.augmented else 0.0,
            beta2=None if hyperparams.beta2 is None else self._on_device["beta2"],
        )

    # --- The protocol `GraphedState` ---

    def device_state(self) -> dict[str, StatePart]:
        trainer = self._trainer
        return {
            "means": StatePart([trainer.metrics.sums], _LINEAR_TOLERANCE),
            **_network_state("G", trainer.G, trainer.opt_g),
            **_network_state("D", trainer.D, trainer.opt_d),
        }

    def host_state(self) -> tuple[Tensor, Tensor, list[int]]:
        """States of the step's generator and of torch's default generator, and the counts of the metrics."""
        return self._trainer.rng.get_state(), _default_rng(self._trainer.device), self.counts()

    def set_host_state(self, state: Any, new_generator: bool) -> None:
        trainer = self._trainer
        rng, default, counts = state
        if new_generator:  # a failed capture leaves its generator unusable
            trainer.rng = torch.Generator(trainer.device)
        trainer.rng.set_state(rng)
        _set_default_rng(trainer.device, default)
        trainer.metrics.counts = list(counts)
        for network in (trainer.G, trainer.D):
            network.zero_grad(set_to_none=True)

    def counts(self) -> list[int]:
        return list(self._trainer.metrics.counts)

    def add_counts(self, counts: list[int]) -> None:
        metrics = self._trainer.metrics
        metrics.counts = [now + more for now, more in zip(metrics.counts, counts, strict=True)]


def _network_state(name: str, network: nn.Module, optimizer: torch.optim.Adam) -> dict[str, StatePart]:
    weights = list(network.parameters())
    states = [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]]
    buffers = [b for b in network.buffers() if b.is_floating_point()]
    counters = [b for b in network.buffers() if not b.is_floating_point()] + [s["step"] for s in states]
    return {
        f"gradients of {name}": StatePart([state["exp_avg"] for state in states], _LINEAR_TOLERANCE),
        f"squared gradients of {name}": StatePart(
            [state["exp_avg_sq"] for state in states], 2 * _LINEAR_TOLERANCE
        ),
        f"weights of {name}": StatePart([weight.detach() for weight in weights], _WEIGHT_TOLERANCE),
        f"buffers of {name}": StatePart(buffers, _WEIGHT_TOLERANCE),
        f"counters of {name}": StatePart(counters, 0.0),
    }


def _default_rng(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_default_rng(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
