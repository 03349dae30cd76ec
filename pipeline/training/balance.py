"""Whether the game between D and G is alive: what is read each tick, and the verdict on it.

Owns: `Reading` (what D says of held-out reals, training reals and fresh fakes), `Tally` (sums kept on
the device between two ticks, read once), `verdict`, `hopeless`, and the controller (`steer`) that may hold
the two in scale. Refuses: knowing trials or files.

Everything rests on the AUC, P(D(real) > D(fake)): a rank statistic, so it means the same for every loss.
The fakes are those of the raw G, the player; fid judges its average.
NaN policy: a score that is not finite makes every number of the reading NaN and the verdict `diverged`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.records import TrialRecord

ONE_SIDED = 0.05
"""Balance below this: one side has won the tick. Good generators are seen at 0.2 to 0.8."""

COLLAPSED = 0.05
"""Diversity below this: the fakes are one picture."""

PATIENCE = 4
"""Ticks in a row that a game must be lost, with a fid that has stopped falling, to be hopeless."""

CONTROL_WIDTH = 0.1
"""The controller pushes in full where the AUC is this far outside of its band. Narrower would oscillate."""

CONTROL_RATE = 0.5
"""The share of the way to the push that the controller goes per tick."""

SKIP_MOST = 0.75
"""The largest share of its updates that the winner leaves out."""

RATIO_MOST = 8.0
"""The largest factor, and its inverse the smallest, by which lr_d / lr_g is changed."""

_DEAD = ("d_wins", "g_wins", "collapsed")


@dataclass(frozen=True)
class BalanceReading:
    """What D says at a tick; the fields are those of `TrialRecord` with the same names."""

    balance: float
    auc: float
    overfit: float
    score_real: float
    score_fake: float
    accuracy_real: float
    accuracy_fake: float
    diversity: float


def auc(positive: Tensor, negative: Tensor) -> Tensor:
    """P(positive > negative) + 0.5 P(equal), for scores (N,) and (M,): a scalar in [0, 1]."""
    order = positive[:, None] - negative[None, :]
    return ((order > 0).double() + 0.5 * (order == 0).double()).mean()


def from_auc(value: float) -> float:
    """1 - |2 AUC - 1|: 1 where D is at chance, 0 where one side has won."""
    return 1.0 - abs(2.0 * value - 1.0)


def read_scores(held: Tensor, train: Tensor, fake: Tensor, diversity: Tensor) -> BalanceReading:
    """Make a reading of D's scores (N,) on held-out reals, training reals and fresh fakes.

    diversity: scalar of `spread_ratio`. One transfer from the device for all numbers.
    """
    held, train, fake = held.float(), train.float(), fake.float()
    numbers = torch.stack(
        [
            auc(held, fake),
            auc(train, held),
            held.mean().double(),
            fake.mean().double(),
            (held > 0).double().mean(),
            (fake < 0).double().mean(),
            diversity.double(),
            train.mean().double(),  # for the finite check alone: ranks hide a NaN
        ]
    ).tolist()
    if not all(map(math.isfinite, numbers)):
        return BalanceReading(*[math.nan] * 8)
    return BalanceReading(from_auc(numbers[0]), *numbers[:-1])


def spread_ratio(fake: Tensor, real: Tensor) -> Tensor:
    """Mean pixel variance over a batch of fakes (N,C,H,W) divided by that of reals (M,C,H,W)."""
    return fake.float().var(dim=0).mean() / real.float().var(dim=0).mean().clamp_min(1e-12)


def verdict(reading: BalanceReading, losses: Sequence[float]) -> str:
    """One word for a tick: `diverged`, `collapsed`, `d_wins`, `g_wins` or `healthy`.

    losses: whatever else must be finite for the training to have a meaning.
    """
    if not math.isfinite(reading.auc) or not all(map(math.isfinite, losses)):
        return "diverged"
    if reading.diversity < COLLAPSED:
        return "collapsed"
    if reading.balance < ONE_SIDED:
        return "d_wins" if reading.auc > 0.5 else "g_wins"
    return "healthy"


def hopeless(records: Sequence[TrialRecord]) -> bool:
    """Whether the game has been lost for `PATIENCE` ticks while the best fid stood still.

    Both are asked for: a relativistic D may have AUC 1 all along and still teach its G.
    """
    last = records[-PATIENCE:]
    if len(last) < PATIENCE or any(record.verdict not in _DEAD for record in last):
        return False
    return last[-1].objective >= last[0].objective


def update_controller(control: float, auc: float, low: float, high: float) -> float:
    """The controller's state after a tick, from its state before and the tick's AUC.

    The law: a push in [-1, 1], 0 where the AUC is in [low, high] and growing linearly to +-1 within
    `CONTROL_WIDTH` outside of it, and control += CONTROL_RATE * (push - control). So control stays in
    [-1, 1], never falls when the AUC or the control before rises, settles at the push instead of winding
    up, and is back at exactly 0 after ten ticks in the band. A reading that is NaN moves nothing.

    control: 0 = neutral, above 0 D is held back, below 0 G.
    """
    if not math.isfinite(auc):
        return control
    push = min(1.0, max(0.0, (auc - high) / CONTROL_WIDTH)) - min(1.0, max(0.0, (low - auc) / CONTROL_WIDTH))
    control += CONTROL_RATE * (push - control)
    return 0.0 if abs(control) < 1e-3 else control


def skips_turn(control: float, turn: int) -> bool:
    """Controller `skip`: whether a player held back by `control` leaves out its update number `turn`.

    Of any n turns in a row SKIP_MOST * control * n are left out, evenly spread, to within one.
    """
    share = SKIP_MOST * max(0.0, control)
    return math.floor((turn + 1) * share) > math.floor(turn * share)


def lr_factors(control: float) -> tuple[float, float]:
    """Controller `lr_ratio`: factors in [1/RATIO_MOST, 1] of lr_g and lr_d; only the winner slows down."""
    return RATIO_MOST ** min(0.0, control), RATIO_MOST ** -max(0.0, control)


class MetricAccumulator:
    """Running means of a tick, kept on the device: adding never waits for it, reading does once.

    A NaN anywhere makes its mean NaN, so the read is also the finite check of the tick.
    """

    NAMES = ("loss_d", "sign_real", "sign_fake", "grad_norm_d", "loss_g", "grad_norm_g", "penalty")

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(len(self.NAMES), device=device)
        self._counts = dict.fromkeys(self.NAMES, 0)

    def add(self, name: str, *values: Tensor) -> None:
        """Add scalars, or tensors (k,) of some, to the mean called `name` and to those that follow it."""
        flat = [value.detach().reshape(-1) for value in values]
        found = flat[0] if len(flat) == 1 else torch.cat(flat)  # one kernel to join them, one to add
        first = self.NAMES.index(name)
        self._sums[first : first + len(found)] += found
        for each in self.NAMES[first : first + len(found)]:
            self._counts[each] += 1

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, for a tick that is interrupted."""
        sums = dict(zip(self.NAMES, self._sums.clone().unbind(), strict=True))
        return {"sums": sums, "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        for place, name in enumerate(self.NAMES):
            self._sums[place] = state["sums"][name]
            self._counts[name] = state["counts"][name]

    @property
    def sums(self) -> Tensor:
        """The sums themselves (7,), in the order of `NAMES`: a tensor that stays where it is."""
        return self._sums

    @property
    def counts(self) -> list[int]:
        """How often each was added to, in the order of `NAMES`."""
        return list(self._counts.values())

    def gain(self, counts: list[int]) -> None:
        """Count what was added to the sums in another way than by `add`."""
        for name, count in zip(self.NAMES, counts, strict=True):
            self._counts[name] += count

    def read(self) -> dict[str, float]:
        """The means since the last read, and start anew. A mean of nothing is 0."""
        sums = self._sums.tolist()
        means = {n: s / max(self._counts[n], 1) for n, s in zip(self.NAMES, sums, strict=True)}
        self._sums.zero_()
        self._counts = dict.fromkeys(self.NAMES, 0)
        return means


@contextmanager
def as_displayed_scores(*networks: nn.Module) -> Iterator[None]:
    """Inside: the networks answer as they do in the game, without gradients, and learn nothing.

    Batch norms use the batch's statistics but do not keep them; all else is in eval mode, so that
    spectral norm takes no power iteration.
    """
    norms = [m for n in networks for m in n.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for network in networks:
        network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 0.0
    try:
        with torch.no_grad():
            yield
    finally:
        for network in networks:
            network.train()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
