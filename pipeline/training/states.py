"""What a trial's checkpoints hold: plain values and tensors, so that they load with `weights_only`.

Some keys have older names than the code: checkpoints of earlier versions must load.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

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


class Progress(TypedDict):
    """Numbers of the last record; the seconds of training in an unfinished tick, missing in old files."""

    train_seconds: float
    eval_seconds: float
    best_fid: float | None
    best_kimg: int | None
    tick_seconds: NotRequired[float]


class TrialState(TypedDict):
    """A checkpoint. record: the last `TrialRecord`, None before the first."""

    trainer: TrainerState
    progress: Progress
    record: dict[str, object] | None


class BestState(TypedDict):
    """A best generator. config: a `TrialConfig`. shape: an `ImageShape`. record: of its tick. ema: of G."""

    config: dict[str, object]
    shape: dict[str, int]
    kimg: int
    record: dict[str, object]
    ema: Weights


def trial_state(trainer: TrainerState, record: TrialRecord | None, tick_seconds: float = 0.0) -> TrialState:
    """The content of a checkpoint. record: the last one, if there is one."""
    progress: Progress = {
        "train_seconds": 0.0 if record is None else record.train_seconds,
        "eval_seconds": 0.0 if record is None else record.eval_seconds,
        "best_fid": None if record is None else record.best_fid,
        "best_kimg": None if record is None else record.best_kimg,
        "tick_seconds": tick_seconds,
    }
    return {
        "trainer": trainer,
        "progress": progress,
        "record": None if record is None else record.to_dict(),
    }
