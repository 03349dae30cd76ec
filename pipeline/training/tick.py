"""A tick that was trained: what is kept of it until it is measured and saved, and its record.

Owns: `Tick`, `Progress` (what a trial remembers besides its networks), the record made of both. Refuses:
training, measuring, files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.records import TrialRecord, objective_of
from pipeline.training.balance import BalanceReading
from pipeline.training.networks.blocks import Generator


@dataclass(frozen=True)
class RunState:
    """What a trial remembers besides its networks."""

    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    best_fid: float | None = None
    best_kimg: int | None = None
    tick_seconds: float = 0.0  # of a tick that was interrupted


@dataclass(frozen=True)
class Tick:
    """A tick that was trained, as it is measured and saved. seen: reals shown to D in it.

    generator, state: the average of G and the trainer's state at its end. train_seconds: of it alone;
    read_seconds: of the reading.
    """

    kimg: int
    word: str
    reading: BalanceReading
    means: dict[str, float]
    seen: int
    train_seconds: float
    read_seconds: float
    generator: Generator
    state: dict[str, Any]


def record_of(number: int, tick: Tick, fid: float | None, progress: RunState) -> TrialRecord:
    """The record of a tick of trial `number`; progress: with this tick in it."""
    return TrialRecord(
        trial=number,
        kimg=tick.kimg,
        verdict=tick.word,
        objective=objective_of(progress.best_fid),
        fid=fid,
        best_fid=progress.best_fid,
        best_kimg=progress.best_kimg,
        images_per_sec=tick.seen / max(tick.train_seconds, 1e-9),
        train_seconds=progress.train_seconds,
        eval_seconds=progress.eval_seconds,
        **vars(tick.reading),
        **tick.means,
    )
