"""Why one trial lost: what its records show, in plain words, and what to try against it.

One rule per kind of reason; a rule returns a `Reason` or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from pipeline.records import TrialRecord
from pipeline.reporting.explain.regions import best_trials, regions
from pipeline.reporting.history import History, TrialView
from pipeline.storage.readable import short_number
from pipeline.tables import LOSSES, PENALTIES, LossRow

_VANISHED = 0.1
"""G's gradients have vanished if their norm is below this fraction of its maximum over the trial."""
_OVERFIT = 0.65
"""D has overfitted to the training images if the metric `overfit` is above this (0.5 = not at all)."""
_WORSE = 1.25
"""A stability (last fid / best fid) at or above this: the trial ended clearly worse than its best tick."""
_STILL_FALLING = 0.03
"""A best fid that fell by at least this fraction in the last tick has not converged."""
ADVISED_PENALTY = next(name for name, row in PENALTIES.items() if row.advised)
ADVISED_LOSS = next(name for name, row in LOSSES.items() if row.resists_collapse)
"""What is advised where D wins or G collapses."""


@dataclass(frozen=True)
class Reason:
    """What the records show (`text`) and what to try, without a capital and a full stop; advice may be empty.

    kind: one word, for counting.
    """

    kind: str
    text: str
    advice: str = ""


@dataclass(frozen=True)
class _Case:
    """A trial, and the winner to compare it with."""

    trial: TrialView
    winner: TrialView | None
    history: History

    def __getitem__(self, name: str) -> Any:
        """The trial's value of a hyper-parameter."""
        return self.history.value(self.trial, name)

    @property
    def loss(self) -> LossRow:
        """The row of its loss; of the user's own nothing is known."""
        return LOSSES.get(self["loss"], LossRow(target="", meaning=""))

    @property
    def last(self) -> TrialRecord | None:
        """The record of its last tick."""
        return self.trial.records[-1] if self.trial.records else None

    @property
    def since(self) -> int:
        """The kimg of the first of the ticks at its end that have its verdict without a break."""
        unbroken = takewhile(
            lambda record: record.verdict == self.trial.verdict, reversed(self.trial.records)
        )
        return min((record.kimg for record in unbroken), default=int(self.trial.last_kimg))

    def describe(self, name: str) -> str:
        """A hyper-parameter with both values: `lr_d (0.0067; the winner has 0.0009)`."""
        ours = short_number(self[name])
        theirs = ours if self.winner is None else short_number(self.history.value(self.winner, name))
        return f"{name} ({ours})" if ours == theirs else f"{name} ({ours}; the winner has {theirs})"


def find_reasons(history: History, trial: TrialView) -> list[Reason]:
    """The reasons of a trial, the most serious first; at least one."""
    case = _Case(trial, history.winner, history)
    rules = [rule for rule in (_OF_STATE.get(trial.state), _OF_VERDICT.get(trial.verdict)) if rule]
    found = [reason for rule in (*rules, *_RULES) if (reason := rule(case)) is not None]
    return found or [Reason("unknown", "its files do not show how it ended")]


def _running(case: _Case) -> Reason:
    full = case.history.full_kimg
    return Reason("running", f"it has trained {case.trial.last_kimg:g} of {full or '?'} kimg")


def _failed(case: _Case) -> Reason:
    trial = case.trial
    text = f"it failed at {trial.last_kimg:g} kimg: {trial.cause or 'no cause is known'}"
    advice = "its cause is the last message of its worker; the other trials went on"
    if "memory" in trial.cause.lower():
        advice = "lower batch_size, width_g and width_d, or the trials per GPU (--gpus-per-trial)"
    return Reason("failed", text, advice)


def _diverged(case: _Case) -> Reason:
    higher = "lr_d" if case["lr_d"] > case["lr_g"] else "lr_g"
    advice = [f"lower {case.describe(higher)}"]
    advice += ["train in float32"] if case["precision"] == "bfloat16" else []
    advice += [f"lower {case.describe('gamma')}"] if case["penalty"] != "none" else [_add_penalty(case)]
    text = f"it diverged at {case.trial.last_kimg:g} kimg: a loss or a score was no longer a finite number"
    return Reason("diverged", text, ", ".join(advice))


def _add_penalty(case: _Case) -> str:
    needed = case.loss.needs_penalty and case["norm_d"] != "spectral"
    return f"add penalty {ADVISED_PENALTY}" + (f", which loss {case['loss']} needs" if needed else "")


def _collapsed(case: _Case) -> Reason | None:
    last = case.last
    if last is None:
        return None
    text = f"G collapsed at {case.since} kimg: its images are all alike (their diversity is"
    text += f" {100 * last.diversity:.1f} % of that of the real images)"
    advice = [f"lower {case.describe('lr_g')}"]
    advice += [_add_penalty(case)] if case["penalty"] == "none" else []
    advice += ["try a larger batch_size"] if case.loss.resists_collapse else [f"try loss {ADVISED_LOSS}"]
    return Reason("collapsed", text, ", ".join(advice))


def _d_wins(case: _Case) -> Reason | None:
    last = case.last
    if last is None:
        return None
    text = f"D won at {case.since} kimg (AUC {last.auc:.2f}, balance {last.balance:.2f})"
    norms = [r.grad_norm_g for r in case.trial.records if math.isfinite(r.grad_norm_g)]
    if norms and norms[-1] < _VANISHED * max(norms):
        text += f", and G's gradients vanished ({max(norms):.2g} fell to {norms[-1]:.2g})"
    elif norms:
        text += f", though G still gets gradients ({norms[-1]:.2g})"
    advice = [f"lower {case.describe('lr_d')}"]
    advice += [_add_penalty(case)] if case["penalty"] == "none" else [f"raise {case.describe('gamma')}"]
    other = next(name for name, row in LOSSES.items() if not row.saturates)
    advice += [f"use loss {other}"] if case.loss.saturates else []
    advice += ["let controller skip hold D back"] if case["controller"] == "none" else []
    return Reason("d_wins", text, " or ".join(advice))


def _g_wins(case: _Case) -> Reason | None:
    last = case.last
    if last is None:
        return None
    text = f"G won at {case.since} kimg: D takes fakes for real images (AUC {last.auc:.2f})"
    advice = [f"raise {case.describe('lr_d')}", f"raise {case.describe('width_d')}"]
    advice += [f"lower {case.describe('gamma')}"] if case["penalty"] != "none" else ["give D n_critic = 2"]
    return Reason("g_wins", text, " or ".join(advice))


def _unstable(case: _Case) -> Reason | None:
    trial = case.trial
    if trial.stability is None or trial.stability < _WORSE or trial.kimg is None:
        return None
    text = f"it was best at {trial.kimg:g} kimg and ended with {trial.stability:.2g} times that fid"
    schedule = "schedule cosine" if case["schedule"] == "constant" else "a lower lr_final"
    return Reason("unstable", text, f"try {schedule}, or a longer {case.describe('ema_halflife_kimg')}")


def _overfit(case: _Case) -> Reason | None:
    if case.last is None or not case.last.overfit > _OVERFIT:
        return None
    text = f"D has memorized the training images (overfit {case.last.overfit:.2f}; 0.5 = not at all)"
    advice = "set augment = ada" if case["augment"] == "none" else "raise augment_p, or add images"
    mirror = "" if case["mirror"] else ", or set mirror = true where mirror images are as good"
    return Reason("overfit", text, advice + mirror)


def _stopped(case: _Case) -> Reason | None:
    trial = case.trial
    if trial.state != "pruned" or trial.verdict == "diverged":
        return None
    text = f"it was stopped at {trial.last_kimg:g} kimg"
    text += f" ({trial.cause})" if trial.cause else ""
    theirs = case.winner.best_at(trial.last_kimg) if case.winner else None
    if trial.fid is not None and theirs is not None and case.winner is not None and case.winner != trial:
        text += f": its best fid was {trial.fid:.4g}, that of trial {case.winner.number} {theirs:.4g} by then"
    return Reason("stopped", text)


def _still_falling(case: _Case) -> Reason | None:
    trial = case.trial
    fids = [r.fid for r in trial.records if r.fid is not None]
    if trial.state != "complete" or len(fids) < 2 or trial.kimg != trial.last_kimg:
        return None
    before = min(fids[:-1])
    if before <= 0 or 1 - fids[-1] / before < _STILL_FALLING:
        return None
    text = f"its fid was still falling when it ended ({before:.4g} to {fids[-1]:.4g} in the last tick)"
    return Reason("falling", text, f"train longer (--kimg {2 * int(trial.last_kimg)})")


def _merit(case: _Case) -> Reason | None:
    """A trial with a fid that is not the winner: its fid beside the winner's."""
    trial, winner = case.trial, case.winner
    if winner is None or winner == trial or winner.fid is None or trial.fid is None:
        return None
    if trial.state == "running":
        return None
    text = f"its best fid is {trial.fid:.4g}, that of trial {winner.number} {winner.fid:.4g}"
    if trial.fid >= winner.fid > 0:
        factor = trial.fid / winner.fid
        times = f"{factor:.2g}" if factor < 10 else f"{factor:.0f}"
        text = f"its best fid is {trial.fid:.4g}, {times} times that of trial {winner.number}"
    elif trial.fid < winner.fid:
        won = f"trial {winner.number} won the final evaluation"
        text = f"its fid of {trial.fid:.4g} was the lowest, but {won}"
    outside = _outside_region(case)
    return Reason("merit", text, "move " + ", ".join(outside[:3]) if outside else "")


def _outside_region(case: _Case) -> list[str]:
    """The trial's values that lie outside of the region of the best trials, each with that region."""
    texts = []
    for region in regions(case.history, best_trials(case.history)):
        value: Any = case.trial.params.get(region.name)
        there = ""
        if value is not None and region.counts and value not in region.counts:
            there = f"what the best trials have: {', '.join(map(short_number, region.counts))}"
        elif value is not None and not region.counts and not region.low <= value <= region.high:
            low, high = short_number(region.low), short_number(region.high)
            there = f"where the best trials lie: {low} to {high}"
        texts += [f"{region.name} ({short_number(value)}) to {there}"] if there else []
    return texts


_Rule = Callable[[_Case], Reason | None]
_OF_STATE: dict[str, _Rule] = {"running": _running, "failed": _failed}
_OF_VERDICT: dict[str, _Rule] = {
    "diverged": _diverged,
    "collapsed": _collapsed,
    "d_wins": _d_wins,
    "g_wins": _g_wins,
}
_RULES: tuple[_Rule, ...] = (_stopped, _unstable, _overfit, _still_falling, _merit)
"""The rules that follow, the most serious kind of reason first."""
