"""The balance between D and G: its measurement at each tick, the verdict, and a controller for it.

Everything is based on the AUC, P(D(real) > D(fake)): a rank statistic, so it is comparable between losses.
The fakes are those of the live G; fids are of its EMA weights.

A score that is not finite makes all numbers of the reading NaN, and the verdict `diverged`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.records import TrialRecord
from pipeline.training._compat import BatchNorm
from pipeline.training.states import MetricsState

ONE_SIDED = 0.05
"""Below this balance one side wins. Good generators are observed at 0.2 to 0.8."""
COLLAPSED = 0.05
"""Below this diversity the fakes are all the same image."""
PATIENCE = 4
"""Ticks in a row with a bad verdict, and no better fid, after which training is hopeless."""

CONTROL_WIDTH = 0.1
"""Distance of the AUC from its band at which the controller acts fully. Smaller values would oscillate."""
CONTROL_RATE = 0.5
"""Fraction by which the controller moves towards its target per tick."""
MAX_SKIPPED = 0.75
"""Largest fraction of its updates that the winner skips."""
MAX_LR_RATIO = 8.0
"""Largest factor by which lr_d / lr_g is changed; its inverse is the smallest."""


@dataclass(frozen=True)
class BalanceReading:
    """Statistics of the scores of D at a tick; the fields are those of `TrialRecord` with the same names."""

    balance: float
    auc: float
    overfit: float
    score_real: float
    score_fake: float
    accuracy_real: float
    accuracy_fake: float
    diversity: float


def auc(positive: Tensor, negative: Tensor) -> Tensor:
    """P(positive > negative) + 0.5 P(equal) for scores (N,) and (M,): a float64 scalar in [0, 1]."""
    order = positive[:, None] - negative[None, :]
    return ((order > 0).double() + 0.5 * (order == 0).double()).mean()


def balance_from_auc(value: float) -> float:
    """1 - |2 AUC - 1|: 1 where D is at chance level, 0 where one side has won."""
    return 1.0 - abs(2.0 * value - 1.0)


def read_scores(held: Tensor, train: Tensor, fake: Tensor, diversity: Tensor) -> BalanceReading:
    """A reading from the scores (N,) of D on each, and the `spread_ratio`; one transfer from the device."""
    held, train, fake = held.float(), train.float(), fake.float()
    scalars = {
        "auc": auc(held, fake),
        "overfit": auc(train, held),
        "score_real": held.mean(),
        "score_fake": fake.mean(),
        "accuracy_real": (held > 0).double().mean(),
        "accuracy_fake": (fake < 0).double().mean(),
        "diversity": diversity,
    }
    # The mean of `train` is for the check below alone: ranks hide a NaN.
    *values, train_mean = torch.stack([s.double() for s in (*scalars.values(), train.mean())]).tolist()
    if not all(map(math.isfinite, (*values, train_mean))):
        return BalanceReading(**dict.fromkeys(("balance", *scalars), math.nan))
    numbers = dict(zip(scalars, values, strict=True))
    return BalanceReading(balance=balance_from_auc(numbers["auc"]), **numbers)


def spread_ratio(fake: Tensor, real: Tensor) -> Tensor:
    """Mean pixel variance over a batch of fakes (N,C,H,W) divided by that of reals (M,C,H,W)."""
    return fake.float().var(dim=0).mean() / real.float().var(dim=0).mean().clamp_min(1e-12)


def verdict(reading: BalanceReading, losses: Sequence[float]) -> str:
    """The verdict on a tick: `diverged`, `collapsed`, `d_wins`, `g_wins` or `healthy`.

    losses: other numbers that must be finite, or the training has diverged.
    """
    if not math.isfinite(reading.auc) or not all(map(math.isfinite, losses)):
        return "diverged"
    if reading.diversity < COLLAPSED:
        return "collapsed"
    if reading.balance < ONE_SIDED:
        return "d_wins" if reading.auc > 0.5 else "g_wins"
    return "healthy"


def hopeless(records: Sequence[TrialRecord]) -> bool:
    """Whether the last `PATIENCE` ticks all had a bad verdict and the best fid did not improve.

    Both are required: with a relativistic loss D may have an AUC of 1 all the time while G still improves.
    """
    last = records[-PATIENCE:]
    if len(last) < PATIENCE or any(r.verdict not in ("d_wins", "g_wins", "collapsed") for r in last):
        return False
    return last[-1].objective >= last[0].objective


def is_over(records: Sequence[TrialRecord]) -> bool:
    """Whether longer training would not lower the fid: the last tick diverged, or the trial is `hopeless`."""
    return bool(records) and (records[-1].verdict == "diverged" or hopeless(records))


def update_controller(control: float, auc: float, low: float, high: float) -> float:
    """The state of the controller after a tick, from its state before and the AUC of the tick.

    The target is 0 where the AUC is in [low, high], and changes linearly to +-1 within `CONTROL_WIDTH`
    outside of it. So control stays in [-1, 1], is monotone in the AUC and in its previous value, does not
    wind up, and is exactly 0 again after ten ticks in the band. If the AUC is NaN, control does not change.

    control: 0 = neutral; above 0 D is slowed down, below 0 G.
    """
    if not math.isfinite(auc):
        return control
    above, below = (auc - high) / CONTROL_WIDTH, (low - auc) / CONTROL_WIDTH
    target = min(1.0, max(0.0, above)) - min(1.0, max(0.0, below))
    control += CONTROL_RATE * (target - control)
    return 0.0 if abs(control) < 1e-3 else control


def skips_step(control: float, step: int) -> bool:
    """Controller `skip`: whether a network slowed down by `control` skips its update number `step`.

    Of any n consecutive updates MAX_SKIPPED * control * n are skipped, evenly spaced, to within one.
    """
    fraction = MAX_SKIPPED * max(0.0, control)
    return math.floor((step + 1) * fraction) > math.floor(step * fraction)


def lr_factors(control: float) -> tuple[float, float]:
    """Controller `lr_ratio`: factors in [1/MAX_LR_RATIO, 1] for lr_g and lr_d; only the winner is slowed."""
    return MAX_LR_RATIO ** min(0.0, control), MAX_LR_RATIO ** -max(0.0, control)


class MetricAccumulator:
    """Running means of training metrics over a tick, on the device: `add` does not synchronise, `read` does.

    A NaN makes its mean NaN, so reading is also the tick's check for values that are not finite.
    """

    NAMES = ("loss_d", "sign_real", "sign_fake", "grad_norm_d", "loss_g", "grad_norm_g", "penalty")

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(len(self.NAMES), device=device)  # float32, in the order of `NAMES`
        self.counts = [0] * len(self.NAMES)  # of values in each sum

    def add(self, name: str, *values: Tensor) -> None:
        """Add scalars, or tensors (k,), to the mean called `name` and to those that follow it in `NAMES`."""
        flat = [value.detach().reshape(-1) for value in values]
        joined = flat[0] if len(flat) == 1 else torch.cat(flat)  # one kernel to join them, one to add
        first = self.NAMES.index(name)
        self.sums[first : first + len(joined)] += joined
        for index in range(first, first + len(joined)):
            self.counts[index] += 1

    def state_dict(self) -> MetricsState:
        """The sums so far, for the checkpoint of an unfinished tick."""
        sums = dict(zip(self.NAMES, self.sums.clone().unbind(), strict=True))
        return {"sums": sums, "counts": dict(zip(self.NAMES, self.counts, strict=True))}

    def load_state_dict(self, state: MetricsState) -> None:
        """Restore what `state_dict` returned."""
        for index, name in enumerate(self.NAMES):
            self.sums[index] = state["sums"][name]
            self.counts[index] = state["counts"][name]

    def read(self) -> dict[str, float]:
        """The means since the last read, after which all sums are reset. A mean of no values is 0."""
        means = [total / max(count, 1) for total, count in zip(self.sums.tolist(), self.counts, strict=True)]
        self.sums.zero_()
        self.counts = [0] * len(self.NAMES)
        return dict(zip(self.NAMES, means, strict=True))


@contextmanager
def scoring_mode(*networks: nn.Module) -> Iterator[None]:
    """Inside: the networks compute the outputs that they have in training, without gradients or side effects.

    Batch norms use the statistics of the batch but do not track them; everything else is in eval mode, so
    that spectral norm does no power iteration. All networks are in training mode afterwards.
    """
    norms = [m for n in networks for m in n.modules() if isinstance(m, BatchNorm)]
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
