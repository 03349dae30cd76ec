"""One trained tick until it is measured and saved, and the record that is made of it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.records import TrialRecord, objective_of
from pipeline.training.balance import BalanceReading
from pipeline.training.networks.blocks import Generator
from pipeline.training.states import RunState, TrainerState


@dataclass(frozen=True)
class Tick:
    """One trained tick, ready to be measured and saved.

    kimg: at its end. means: of the metrics over the tick, with the adaptive settings. images: reals shown to
    D in it. train_seconds: of this tick alone. balance_seconds: of its balance reading. generator, state: the
    EMA of G and the trainer's state at its end.
    """

    kimg: int
    verdict: str
    reading: BalanceReading
    means: dict[str, float]
    images: int
    train_seconds: float
    balance_seconds: float
    generator: Generator
    state: TrainerState


def make_record(number: int, tick: Tick, fid: float | None, run_state: RunState) -> TrialRecord:
    """The record of a tick of trial `number`; run_state: after this tick."""
    return TrialRecord(
        trial=number,
        kimg=tick.kimg,
        verdict=tick.verdict,
        objective=objective_of(run_state.best_fid),
        fid=fid,
        best_fid=run_state.best_fid,
        best_kimg=run_state.best_kimg,
        images_per_sec=tick.images / max(tick.train_seconds, 1e-9),
        train_seconds=run_state.train_seconds,
        eval_seconds=run_state.eval_seconds,
        **vars(tick.reading),
        **tick.means,
    )
