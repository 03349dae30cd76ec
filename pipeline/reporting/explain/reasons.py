"""Why one trial came to what it came: what its records show, in plain words, and what to do about it.

Owns: `reasons`, one function per thing that can be seen. Refuses: the space as a whole (`region`), files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.records import TrialRecord
from pipeline.reporting.explain.regions import regions, winners
from pipeline.reporting.history import History, TrialView, short_number

VANISHED = 0.1
"""G's gradient has vanished below this share of the largest that it had."""

BY_HEART = 0.65
"""Overfit above this: D knows the training images by heart."""

WORSE = 1.25
"""Stability above this: the trial did not end where it was best."""

STILL_FALLING = 0.03
"""A best fid that fell by more than this share over the last tick has not settled."""


@dataclass(frozen=True)
class Reason:
    """One thing seen. kind: one word for counting; text: what was seen; advice: what to do, or empty."""

    kind: str
    text: str
    advice: str = ""


@dataclass(frozen=True)
class _Case:
    """A trial, beside the one that won."""

    told: TrialView
    won: TrialView | None
    history: History

    def __getitem__(self, name: str) -> Any:
        return self.history.value(self.told, name)

    def rate(self, name: str) -> str:
        """`lr_d (0.0067; the winner has 0.0009)`."""
        ours = short_number(self[name])
        theirs = ours if self.won is None else short_number(self.history.value(self.won, name))
        return f"{name} ({ours})" if ours == theirs else f"{name} ({ours}; the winner has {theirs})"


def reasons(history: History, told: TrialView) -> list[Reason]:
    """What is to be said of a trial, the heaviest first; at least one."""
    case = _Case(told, history.winner, history)
    found = [reason for see in _SEEN if (reason := see(case)) is not None]
    return found or [Reason("unknown", "its files do not tell what became of it")]


def since(records: tuple[TrialRecord, ...], verdict: str) -> int:
    """The kimg at which the last unbroken row of ticks with `verdict` began."""
    begun = records[-1].kimg
    for record in reversed(records):
        if record.verdict != verdict:
            break
        begun = record.kimg
    return begun


def _running(case: _Case) -> Reason | None:
    if case.told.state != "running":
        return None
    full = case.history.full_kimg
    return Reason("running", f"it has trained {case.told.last_kimg:g} of {full or '?'} kimg")


def _failed(case: _Case) -> Reason | None:
    told = case.told
    if told.state != "failed":
        return None
    memory = "memory" in told.cause.lower()
    advice = "lower batch_size, width_g and width_d, or the trials per GPU (--gpus-per-trial)"
    return Reason(
        "failed",
        f"it failed at {told.last_kimg:g} kimg: {told.cause or 'without a word'}",
        advice if memory else "its worker's last words are the cause; the other trials went on",
    )


def _diverged(case: _Case) -> Reason | None:
    told = case.told
    if told.verdict != "diverged":
        return None
    higher = "lr_d" if case["lr_d"] > case["lr_g"] else "lr_g"
    advice = [f"lower {case.rate(higher)}"]
    advice += ["train in float32"] if case["precision"] == "bfloat16" else []
    advice += [f"lower {case.rate('gamma')}"] if case["penalty"] != "none" else ["add penalty r1"]
    text = f"it diverged at {told.last_kimg:g} kimg: a loss or a score was no finite number any more"
    return Reason("diverged", text, ", ".join(advice))


def _collapsed(case: _Case) -> Reason | None:
    told = case.told
    if told.verdict != "collapsed" or not told.records:
        return None
    begun, spread = since(told.records, "collapsed"), told.records[-1].diversity
    text = (
        f"G collapsed at {begun} kimg: it draws one picture (its fakes spread {100 * spread:.1f} % as far as"
        " the reals)"
    )
    advice = [f"lower {case.rate('lr_g')}"]
    advice += ["add penalty r1"] if case["penalty"] == "none" else []
    advice += ["try loss relativistic"] if case["loss"] != "relativistic" else ["try a larger batch_size"]
    return Reason("collapsed", text, ", ".join(advice))


def _d_wins(case: _Case) -> Reason | None:
    told = case.told
    if told.verdict != "d_wins" or not told.records:
        return None
    last = told.records[-1]
    text = f"D won at {since(told.records, 'd_wins')} kimg (AUC {last.auc:.2f}, balance {last.balance:.2f})"
    norms = [r.grad_norm_g for r in told.records if math.isfinite(r.grad_norm_g)]
    if norms and norms[-1] < VANISHED * max(norms):
        text += f", and G's gradients vanished ({max(norms):.2g} fell to {norms[-1]:.2g})"
    elif norms:
        text += f", though G still gets gradients ({norms[-1]:.2g})"
    advice = [f"lower {case.rate('lr_d')}"]
    advice += ["add penalty r1"] if case["penalty"] == "none" else [f"raise {case.rate('gamma')}"]
    advice += ["use loss nonsaturating"] if case["loss"] == "minimax" else []
    advice += ["let controller skip hold D back"] if case["controller"] == "none" else []
    return Reason("d_wins", text, " or ".join(advice))


def _g_wins(case: _Case) -> Reason | None:
    told = case.told
    if told.verdict != "g_wins" or not told.records:
        return None
    last = told.records[-1]
    text = f"G won at {since(told.records, 'g_wins')} kimg: D takes fakes for reals (AUC {last.auc:.2f})"
    advice = [f"raise {case.rate('lr_d')}", f"raise {case.rate('width_d')}"]
    advice += [f"lower {case.rate('gamma')}"] if case["penalty"] != "none" else ["give D n_critic = 2"]
    return Reason("g_wins", text, " or ".join(advice))


def _worse(case: _Case) -> Reason | None:
    told = case.told
    if told.stability is None or told.stability < WORSE or told.kimg is None:
        return None
    text = f"it was best at {told.kimg:g} kimg and ended {told.stability:.2g} times as far away"
    calm = "schedule cosine" if case["schedule"] == "constant" else "a lower lr_final"
    return Reason("unstable", text, f"try {calm}, or a longer {case.rate('ema_halflife_kimg')}")


def _overfit(case: _Case) -> Reason | None:
    records = case.told.records
    if not records or not records[-1].overfit > BY_HEART:
        return None
    text = f"D knows the training images by heart (overfit {records[-1].overfit:.2f}; 0.5 = not at all)"
    augmented = case["augment"] != "none"
    return Reason("overfit", text, "raise augment_p, or add images" if augmented else "set augment = ada")


def _stopped(case: _Case) -> Reason | None:
    told = case.told
    if told.state != "pruned" or told.verdict == "diverged":
        return None
    text = f"it was stopped at {told.last_kimg:g} kimg"
    text += f" ({told.cause})" if told.cause else ""
    theirs = case.won.best_at(told.last_kimg) if case.won else None
    if told.fid is not None and theirs is not None and case.won is not None and case.won != told:
        text += f": its best fid was {told.fid:.4g}, that of trial {case.won.number} {theirs:.4g} by then"
    return Reason("stopped", text)


def _falling(case: _Case) -> Reason | None:
    told = case.told
    fids = [r.fid for r in told.records if r.fid is not None]
    if told.state != "complete" or len(fids) < 2 or told.kimg != told.last_kimg:
        return None
    before = min(fids[:-1])
    if before <= 0 or 1 - fids[-1] / before < STILL_FALLING:
        return None
    text = f"its fid was still falling when it ended ({before:.4g} to {fids[-1]:.4g} in the last tick)"
    return Reason("falling", text, f"train longer (--kimg {2 * int(told.last_kimg)})")


def _merit(case: _Case) -> Reason | None:
    """A trial that played a fair game to its end, and lost to a better one."""
    told, won = case.told, case.won
    if told.fid is None or won is None or won == told or won.fid is None or told.state == "running":
        return None
    text = f"its best fid is {told.fid:.4g}, that of trial {won.number} {won.fid:.4g}"
    if told.fid >= won.fid > 0:
        text = (
            f"its best fid is {told.fid:.4g}, {_times(told.fid / won.fid)} times that of trial {won.number}"
        )
    elif told.fid < won.fid:
        text = f"its fid of {told.fid:.4g} was the lowest, but trial {won.number} won the finals"
    outside = _outside(case)
    return Reason("merit", text, "move " + ", ".join(outside[:3]) if outside else "")


def _times(factor: float) -> str:
    return f"{factor:.2g}" if factor < 10 else f"{factor:.0f}"


def _outside(case: _Case) -> list[str]:
    """Its values that none of the best trials come near, each with where those lie."""
    texts = []
    for region in regions(case.history, winners(case.history)):
        value = case.told.params.get(region.name)
        if value is None:
            continue
        if region.counts and value not in region.counts:
            chosen = ", ".join(map(short_number, region.counts))
            texts.append(f"{region.name} ({short_number(value)}) to what the best trials have: {chosen}")
        elif not region.counts and not region.low <= value <= region.high:
            low, high = short_number(region.low), short_number(region.high)
            texts.append(
                f"{region.name} ({short_number(value)}) to where the best trials lie: {low} to {high}"
            )
    return texts


_SEEN: tuple[Callable[[_Case], Reason | None], ...] = (
    *(_running, _failed, _diverged, _collapsed, _d_wins, _g_wins),
    *(_stopped, _worse, _overfit, _falling, _merit),
)
