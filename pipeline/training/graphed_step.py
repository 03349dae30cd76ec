"""A trainer's step, recorded and replayed.

Owns: `Turn` and `Rates` (all that tells one step from another, made from a pace), `Recorded` (the tensors
they are kept in for replays, and what must be put right if a recording fails). Refuses: the step itself, the
mechanism of graphs.
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
from pipeline.training.cuda_graphs import GraphCache, Recorder, StatePart
from pipeline.training.events import OnEvent
from pipeline.training.prefetch import Prefetcher
from pipeline.training.schedules import StepSchedule

_TIGHT, _NOISY = 0.1, 0.5
"""Tolerances: of what is linear in gradients; of what Adam has divided by their size."""


@dataclass(frozen=True)
class StepKind:
    """Of which kind a step is: two steps with equal turns launch the same kernels.

    g_is_due: G's n_critic-th turn has come, whether or not it plays. due: D's penalty is taken.
    """

    d_plays: bool
    g_plays: bool
    g_is_due: bool = field(compare=False)  # launches nothing: G's average is updated beside the step
    due: bool
    augmented: bool
    pieces: int


@dataclass(frozen=True)
class StepHyperparams:
    """What a step is played with: numbers, or scalars on the device that a recorded step reads each time.

    penalty: factor of D's slope. augment_p: 0.0 where nothing is augmented.
    beta2: None where it never moves, so that the optimizers' own number holds.
    """

    lr_g: float | Tensor
    lr_d: float | Tensor
    penalty: float | Tensor
    augment_p: float | Tensor
    beta2: float | Tensor | None = None

    @property
    def recorded(self) -> bool:
        """Whether the step is one that will be replayed: Python's time in it does not count."""
        return isinstance(self.lr_d, Tensor)

    def step(self, optimizer: torch.optim.Adam, lr: float | Tensor) -> None:
        """Update an optimizer's weights by the gradients that they have."""
        if isinstance(lr, Tensor):
            step_with_tensor_lr(optimizer, lr, self.beta2 if isinstance(self.beta2, Tensor) else None)
        else:
            optimizer.step()  # its groups have the numbers


def step_kind(config: TrialConfig, now: StepSchedule, nimg: int, d_steps: int, pieces: int) -> StepKind:
    """The kind of the step that ends at `nimg`: D trains alone first, then more often than G.

    d_steps: updates of D before it. pieces: parts in which a batch goes through the networks.
    """
    warm = nimg > config.d_warmup_kimg * 1000
    g_is_due = warm and nimg // config.batch_size % config.n_critic == 0
    penalised = config.penalty != "none" and now.gamma > 0 and not now.skip_d
    due = penalised and d_steps % config.penalty_interval == 0
    return StepKind(
        d_plays=not now.skip_d,
        g_plays=g_is_due and not now.skip_g,
        g_is_due=g_is_due,
        due=due,
        augmented=now.augment_p > 0,
        pieces=pieces,
    )


def step_hyperparams(config: TrialConfig, now: StepSchedule) -> StepHyperparams:
    """What a step at this pace is played with."""
    beta2 = now.beta2 if config.schedule == "cosine" and config.beta2_final else None
    return StepHyperparams(now.lr_g, now.lr_d, now.gamma * config.penalty_interval, now.augment_p, beta2)


Play = Callable[[StepKind, StepHyperparams, Tensor, Tensor | None], None]
"""One step: of a kind, at rates, on reals float32 (N,C,H,W) and their labels (N,)."""

Recording = Callable[[torch.device, Callable[[], torch.Generator]], Recorder | None]
"""(device, what gives the generator that steps draw from) -> a recorder, or None."""


class TrainerParts(Protocol):
    """What a step moves, and draws from."""

    @property
    def G(self) -> nn.Module: ...
    @property
    def D(self) -> nn.Module: ...

    opt_g: torch.optim.Adam
    opt_d: torch.optim.Adam
    tally: MetricAccumulator
    rng: torch.Generator
    device: torch.device


class GraphedStep:
    """Takes steps, by replay where it can."""

    def __init__(
        self, players: TrainerParts, feed: Prefetcher, recorder: Recorder, on_event: OnEvent
    ) -> None:
        self._players, self._feed = players, feed
        self.replays = GraphCache(recorder, self, on_event)
        self._dials = {dial.name: torch.zeros((), device=players.device) for dial in fields(StepHyperparams)}
        self._set: dict[str, float] = {}

    def take(self, turn: StepKind, rates: StepHyperparams, play: Play, position: int) -> None:
        """One step on the reals at `position` of the stream."""
        self._feed.load(position)
        dials = self._dial(rates, turn)

        def recorded() -> None:
            play(turn, dials, self._feed.reals(), self._feed.labels)

        def plain() -> None:
            play(turn, rates, self._feed.reals(), self._feed.labels)

        self.replays.take(turn, recorded, plain)

    def start(self) -> None:
        """Before a run of steps: a recorded step finds its optimizers' states, and never makes them."""
        make_capturable(self._players.opt_g)
        make_capturable(self._players.opt_d)

    def _dial(self, rates: StepHyperparams, turn: StepKind) -> StepHyperparams:
        """The rates as scalars on the device, set there where they have changed, without a transfer."""
        for name, value in vars(rates).items():
            if value is not None and self._set.get(name) != value:
                self._dials[name].fill_(value)
                self._set[name] = value
        dials: dict[str, Any] = dict(self._dials)
        dials["augment_p"] = self._dials["augment_p"] if turn.augmented else 0.0
        dials["beta2"] = None if rates.beta2 is None else self._dials["beta2"]
        return StepHyperparams(**dials)

    # --- What `Replays` asks for ---

    def parts(self) -> dict[str, StatePart]:
        """All tensors that a step moves in place."""
        players = self._players
        sums = StatePart([players.tally.sums], _TIGHT)
        return {
            "means": sums,
            **_parts("G", players.G, players.opt_g),
            **_parts("D", players.D, players.opt_d),
        }

    def on_host(self) -> tuple[Tensor, Tensor, list[int]]:
        """States of the step's generator and of torch's own, and the tally's counts."""
        return self._players.rng.get_state(), _default_rng(self._players.device), self.counts()

    def set_host(self, state: Any, fresh: bool) -> None:
        """A capture that failed leaves its generator unusable: `fresh` makes another with that state."""
        players = self._players
        rng, default, counts = state
        if fresh:
            players.rng = torch.Generator(players.device)
        players.rng.set_state(rng)
        _set_default_rng(players.device, default)
        self.gain([then - now for then, now in zip(counts, self.counts(), strict=True)])
        for network in (players.G, players.D):
            network.zero_grad(set_to_none=True)

    def counts(self) -> list[int]:
        """How often each of the tally's means was added to."""
        return self._players.tally.counts

    def gain(self, counts: list[int]) -> None:
        """Count what a replay has added."""
        self._players.tally.gain(counts)


def _parts(name: str, network: nn.Module, optimizer: torch.optim.Adam) -> dict[str, StatePart]:
    weights = list(network.parameters())
    states = [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]]
    buffers = [b for b in network.buffers() if b.is_floating_point()]
    counters = [b for b in network.buffers() if not b.is_floating_point()] + [s["step"] for s in states]
    return {
        f"gradients of {name}": StatePart([state["exp_avg"] for state in states], _TIGHT),
        f"squared gradients of {name}": StatePart([state["exp_avg_sq"] for state in states], 2 * _TIGHT),
        f"weights of {name}": StatePart([weight.detach() for weight in weights], _NOISY),
        f"buffers of {name}": StatePart(buffers, _NOISY),
        f"counters of {name}": StatePart(counters, 0.0),
    }


def _default_rng(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_default_rng(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
