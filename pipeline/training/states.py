"""What a trial's checkpoints hold: plain values and tensors, so that they load with `weights_only`.

Some keys have older names than the code: checkpoints of earlier versions must load.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NotRequired, TypedDict

from torch import Tensor
from torch.optim.optimizer import StateDict

from pipeline.records import TrialRecord

Weights = dict[str, Tensor]
"""The parameters and buffers of a network, by name."""


class MetricsState(TypedDict):
    """Sums of the metrics of an unfinished tick, and how many values each has."""

    sums: dict[str, Tensor]
    counts: dict[str, int]


class TrainerState(TypedDict):
    """All that training changes.

    control, ada_p, pieces (`grad_accum_steps`) are missing in old checkpoints. rng, tally (the metrics): of
    an unfinished tick.
    """

    nimg: int
    d_steps: int
    control: NotRequired[float]
    ada_p: NotRequired[float]
    pieces: NotRequired[int]
    G: Weights
    D: Weights
    ema: Weights
    opt_g: StateDict
    opt_d: StateDict
    rng: NotRequired[Tensor]
    tally: NotRequired[MetricsState]


@dataclass(frozen=True)
class RunState:
    """The state of a trial besides its networks."""

    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    best_fid: float | None = None
    best_kimg: int | None = None
    tick_seconds: float = 0.0  # training time of an unfinished tick


class TrialState(TypedDict):
    """A checkpoint. progress: a `RunState`. record: the last `TrialRecord`, None before the first."""

    trainer: TrainerState
    progress: dict[str, Any]
    record: dict[str, object] | None


class BestState(TypedDict):
    """A best generator. config: a `TrialConfig`. shape: an `ImageShape`. record: of its tick. ema: of G."""

    config: dict[str, object]
    shape: dict[str, int]
    kimg: int
    record: dict[str, object]
    ema: Weights


def trial_state(trainer: TrainerState, run_state: RunState, record: TrialRecord | None) -> TrialState:
    """The content of a checkpoint. record: the last one, if there is one."""
    return {
        "trainer": trainer,
        "progress": asdict(run_state),
        "record": None if record is None else record.to_dict(),
    }
