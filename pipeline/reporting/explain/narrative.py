"""A sweep in plain words: why a trial lost, what won and by how much, what to search next.

Owns: the sentences (reasons: of one trial; region: where the best lie, the space to search next).
Refuses: reading or writing files, deciding anything. All of it is a pure function of a `History`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.reporting.explain.reasons import Reason, reasons
from pipeline.reporting.explain.regions import FEWEST, Region, narrowed, regions, winners
from pipeline.reporting.history import History, TrialView, finite, short_number
from pipeline.search.space.definition import Space

Section = tuple[str, list[str]]
"""A heading and its sentences."""

_DEATHS = {
    "diverged": ("diverged", "search lower learning rates"),
    "collapsed": ("collapsed", "search a lower lr_g, a penalty (r1), or the loss relativistic"),
    "d_wins": ("lost to D", "search a lower lr_d, a penalty (r1) or controller = skip"),
    "g_wins": ("won against D, which then teaches nothing", "search a higher lr_d or a wider D"),
    "failed": ("failed", "read their causes: `gansweep explain SWEEP_DIR TRIAL`"),
    "overfit": ("had a D that knew the training images by heart", 'set augment = "ada", or add images'),
    "unstable": ("ended far from their best", 'try schedule = "cosine" or a longer EMA'),
}
_FEW = 10


def explain_sweep(history: History) -> list[Section]:
    """The whole sweep: what won, what lost, what to search next."""
    return [
        ("What won", _won(history)),
        ("What lost", _lost(history)),
        ("What to search next", next_steps(history)),
    ]


def explain_trial(history: History, told: TrialView) -> list[Section]:
    """One trial: what was seen, and what to do about it."""
    seen = reasons(history, told)
    if told == history.winner and told.fid is not None:
        return [("Why it won", [*_won(history), *shared_values(history)]), _advice_of(seen)]
    heading = "How it goes" if told.state == "running" else "Why it lost"
    failures = history.failures(told)
    wrong = [("What went wrong on its way", failures)] if failures else []
    return [(heading, [_sentence(reason.text) for reason in seen]), *wrong, _advice_of(seen)]


def next_steps(history: History) -> list[str]:
    """What the sweep as a whole suggests, the most telling first."""
    best = winners(history)
    if len(best) < FEWEST:
        return ["Fewer than three trials have a fid: search longer before changing the space."]
    found = regions(history, best)
    few = f"{len(history.trials)} trials are few: more of them tell more than what follows."
    lines = [few] if len(history.trials) < _FEW else []
    lines += [*_widen(found), *_longer(history), *_narrow(found), *_against_deaths(history)]
    return lines or ["Nothing stands out: more trials in the same space."]


def next_file(history: History) -> str:
    """The text of the narrowed space, with its origin."""
    best = winners(history)
    space: Space = narrowed(history)
    numbers = ", ".join(str(told.number) for told in best)
    head = (
        f"# The region of the best trials of {history.name} ({numbers}), wider where they lean on a bound.\n"
    )
    return (
        head + "# Written by `gansweep explain --next`; read it before you search it.\n\n" + space.to_toml()
    )


def _won(history: History) -> list[str]:
    won = history.winner
    if won is None or won.fid is None:
        return ["No trial has a fid yet."]
    verb = "won" if history.summary.get("state") == "finished" else "leads so far"
    final = _final(history, won.number)
    return [
        f"Trial {won.number} {verb}: {_fid_of(won, final)}, {_game(history, won)}.",
        *_margin(history, won),
    ]


def _final(history: History, number: int) -> Mapping[str, Any]:
    """The finals' row of a trial; empty where it was none of the finalists."""
    rows = (row for row in history.finals if (row.get("best") or {}).get("trial") == number)
    return next(rows, {})


def _fid_of(won: TrialView, final: Mapping[str, Any]) -> str:
    """`fid 25.09 in [24.46, 25.71] of 5000 samples (the search saw 24.61)`."""
    measured, best = final.get("measurement") or {}, final.get("best") or {}
    fid, low, high = (finite(measured.get(key)) for key in ("fid", "fid_low", "fid_high"))
    if fid is None:
        return f"fid {won.fid:.4g} as the search saw it"
    bounds = "" if low is None or high is None else f" in [{low:.4g}, {high:.4g}]"
    saw = finite(best.get("search_fid")) or won.fid
    text = f"{fid:.4g}{bounds} of {measured.get('n')} samples (the search saw {saw:.4g})"
    mean = _mean(final)
    return f"fid {mean}, its best run {text}" if mean else f"fid {text}"


def _mean(final: Mapping[str, Any]) -> str:
    """What decided where a finalist was trained with several seeds: `0.77 on average of 3 seeds`."""
    known = [run for run in final.get("runs") or [] if finite(run.get("fid")) is not None]
    mean = finite((final.get("best") or {}).get("fid_mean"))
    return f"{mean:.4g} on average of {len(known)} seeds" if mean is not None and len(known) > 1 else ""


def _game(history: History, won: TrialView) -> str:
    best = history.summary.get("best") or {}
    balance, kimg = finite(best.get("balance", won.balance)), best.get("kimg", won.kimg)
    shown = "unknown" if balance is None else f"{balance:.2f}"
    return f"balance {shown} at {short_number(kimg)} of {history.full_kimg or '?'} kimg"


def _margin(history: History, won: TrialView) -> list[str]:
    """By how much: against the second of the finals, else of the search."""
    second = next((row for row in history.finals[1:] if (row.get("best") or {}).get("fid")), None)
    ours = _final(history, won.number).get("measurement") or {}
    if second is not None and finite(ours.get("fid")) is not None:
        theirs, measured = second["best"], second.get("measurement") or {}
        high, low = finite(ours.get("fid_high")), finite(measured.get("fid_low"))
        overlap = high is not None and low is not None and low <= high
        told = "their intervals overlap: call it a tie" if overlap else "their intervals are apart"
        fid = _mean(second) or format(theirs["fid"], ".4g")
        return [f"Trial {theirs['trial']} comes next with {fid}; {told}."]
    others = [told for told in history.measured if told != won]
    if not others or not won.fid:
        return []
    return [f"Trial {others[0].number} comes next with {others[0].fid:.4g} (as the search saw it)."]


def shared_values(history: History) -> list[str]:
    """What the best trials have in common, in a sentence; none where they are too few."""
    best = winners(history)
    if len(best) < FEWEST:
        return []
    texts = [_common(region, len(best)) for region in regions(history, best)]
    shown = "; ".join(text for text in texts if text)
    return [f"The {len(best)} best trials have in common: {shown}."] if shown else []


def _common(region: Region, count: int) -> str:
    if region.counts:
        choice, most = next(iter(region.counts.items()))
        return f"{region.name} = {short_number(choice)} ({most} of {count})" if most > count / 2 else ""
    return f"{region.name} from {short_number(region.low)} to {short_number(region.high)}"


def _lost(history: History) -> list[str]:
    kinds = _kinds(history)
    states = Counter(told.state for told in history.trials)
    counted = ", ".join(f"{count} {state or 'unknown'}" for state, count in states.most_common())
    lines = [f"{len(history.trials)} trials: {counted or 'none'}."]
    for kind, (words, _) in _DEATHS.items():
        numbers = kinds.get(kind, [])
        if numbers:
            shown = ", ".join(map(str, numbers[:12])) + (", ..." if len(numbers) > 12 else "")
            lines.append(f"{len(numbers)} {words}: {shown}.")
    return lines


def _kinds(history: History) -> dict[str, list[int]]:
    """The trials in which each kind of thing was seen, the winner left out."""
    kinds: dict[str, list[int]] = {}
    for told in sorted(history.trials, key=lambda told: told.number):
        if told != history.winner:
            for reason in reasons(history, told):
                kinds.setdefault(reason.kind, []).append(told.number)
    return kinds


def _against_deaths(history: History) -> list[str]:
    """The cure for what killed at least a fifth of the trials."""
    kinds, all_ = _kinds(history), len(history.trials)
    common = [kind for kind in _DEATHS if 5 * len(kinds.get(kind, [])) >= all_ and kinds.get(kind)]
    return [f"{len(kinds[kind])} of {all_} trials {_DEATHS[kind][0]}: {_DEATHS[kind][1]}." for kind in common]


def _widen(found: Sequence[Region]) -> list[str]:
    return [
        f"{r.name}: the best trials lean on its {r.hit} bound {short_number(r.bound)}; widen it."
        for r in found
        if r.hit
    ]


def _longer(history: History) -> list[str]:
    won, full = history.winner, history.full_kimg
    if won is None or full is None or won.kimg != full:
        return []
    falling = any(reason.kind == "falling" for reason in reasons(history, won))
    longer = f"The winner was best at its very end: train longer (--kimg {2 * full})."
    return [longer] if falling else []


def _narrow(found: Sequence[Region]) -> list[str]:
    """Where the best trials lie closer together than the space is wide, in a sentence each for both kinds."""
    made = [
        f"{r.name} = {short_number(r.at)}"
        for r in found
        if len(r.counts) == 1 and len(r.distribution.choices) > 1
    ]
    spans = [
        f"{r.name} in {short_number(r.low)} to {short_number(r.high)}"
        for r in found
        if not r.counts and not r.hit
    ]
    lines = [f"The best trials all have {', '.join(made)}."] if made else []
    return lines + ([f"The best trials lie at {', '.join(spans)}."] if spans else [])


def _advice_of(seen: Sequence[Reason]) -> Section:
    found = [_sentence(reason.advice) for reason in seen if reason.advice]
    return "What to try", found or ["Nothing of its own; see the sweep: `gansweep explain SWEEP_DIR`."]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
