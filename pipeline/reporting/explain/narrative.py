"""Turns reasons (`reasons`) and regions (`regions`) into sentences; no file is read or written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipeline.reporting.explain.reasons import ADVISED_LOSS, ADVISED_PENALTY, Reason, find_reasons
from pipeline.reporting.explain.regions import MIN_TRIALS, Region, best_trials, narrowed_space, regions
from pipeline.reporting.history import History, TrialView
from pipeline.search.space.notes import describe_code, space_code_names
from pipeline.search.surrogate.belief import belief_of
from pipeline.search.surrogate.model import STARTUP
from pipeline.storage.readable import short_number
from pipeline.storage.summary_file import FinalistRow
from pipeline.tables import DATA_SOURCES, EXTRACTORS, PRUNERS, SAMPLERS

Section = tuple[str, list[str]]
"""A heading and its sentences."""

_WORTH_AN_HOUR = 0.01
"""The gain of one more hour, a fraction, below which another space is worth more than more trials."""

_ADVICE_BY_KIND = {
    "diverged": ("diverged", "search lower learning rates"),
    "collapsed": ("collapsed", f"search a lower lr_g, penalty {ADVISED_PENALTY}, or loss {ADVISED_LOSS}"),
    "d_wins": ("lost to D", f"search a lower lr_d, penalty {ADVISED_PENALTY} or controller = skip"),
    "g_wins": ("won against D, which then teaches nothing", "search a higher lr_d or a wider D"),
    "failed": ("failed", "read their causes: `gansweep explain SWEEP_DIR TRIAL`"),
    "overfit": ("had a D that memorized the training images", 'set augment = "ada", or add images'),
    "unstable": ("ended far above their best fid", 'try schedule = "cosine" or a longer EMA'),
}
"""Kind of reason: what happened to the trials, and what to change in the space against it."""


def explain_sweep(history: History) -> list[Section]:
    """The whole sweep: how it searched (if that is known), what won, what lost, what to search next."""
    searched = how_it_searched(history)
    return [
        *([("How it searched", searched)] if searched else []),
        ("What won", what_won(history)),
        ("What lost", what_lost(history)),
        ("What to search next", next_steps(history)),
    ]


def explain_trial(history: History, trial: TrialView) -> list[Section]:
    """One trial: its hyper-parameters, what its records show, and what to try."""
    reasons = find_reasons(history, trial)
    drawn = ", ".join(f"{name} = {short_number(value)}" for name, value in trial.params.items())
    described = [f"Trial {trial.number} has {drawn}."] if drawn else []
    if trial == history.winner and trial.fid is not None:
        return [
            ("Why it won", [*what_won(history), *described, *shared_values(history)]),
            _advice_of(reasons),
        ]
    heading = "How it goes" if trial.state == "running" else "Why it lost"
    failures = history.failures(trial)
    failed = [("What went wrong on its way", failures)] if failures else []
    lines = [*described, *(_sentence(reason.text) for reason in reasons)]
    return [(heading, lines), *failed, _advice_of(reasons)]


def next_steps(history: History) -> list[str]:
    """What to change in the search space, the most important advice first."""
    best = best_trials(history)
    if len(best) < MIN_TRIALS:
        return ["Fewer than three trials have a fid: search longer before changing the space."]
    found = regions(history, best)
    few = f"{len(history.trials)} trials are few: more trials are worth more than the advice below."
    lines = [few] if len(history.trials) < 10 else _one_more_hour(history)
    lines += [*_widen(found), *_longer(history), *_narrow(found), *_common_problems(history)]
    return lines or ["Nothing stands out: more trials in the same space."]


def _one_more_hour(history: History) -> list[str]:
    """What one more hour in the same space should bring, and whether that is worth it; none if unknown."""
    more = history.one_more_hour
    if more.gain is None:
        return []
    worth = "search longer" if more.gain >= _WORTH_AN_HOUR else "change the space instead"
    return [f"One more hour in the same space: {more}; {worth}."]


def next_file(history: History) -> str:
    """The narrowed space as TOML, with a comment that says where it comes from.

    Raises:
        SpaceError: the sweep has no space, or too few trials with a fid.
    """
    numbers = ", ".join(str(trial.number) for trial in best_trials(history))
    source = f"The region of the best trials of {history.name} ({numbers}), wider where they lean on a bound."
    written = "Written by `gansweep explain --next`; read it before you search it."
    return f"# {source}\n# {written}\n\n{narrowed_space(history).to_toml()}"


def how_it_searched(history: History) -> list[str]:
    """Images, extractor, sampler, pruner and the user's own code, as sweep.toml has them."""
    sweep, code = history.stored.get("sweep", {}), history.stored.get("code", {})
    chosen = {**sweep, **history.stored.get("evaluator", {})}  # with the extractor that `auto` became
    lines = [
        f"The {table.field} is {chosen[table.field]}: {table.meaning(str(chosen[table.field]))}."
        for table in (DATA_SOURCES, EXTRACTORS, SAMPLERS, PRUNERS)
        if table.field in chosen
    ]
    lines += _belief(history)
    names = [*(space_code_names(history.space) if history.space else ()), *map(str, sweep.values())]
    lines += [f"Code: {line}." for line in describe_code(names, code)]
    return lines


def _belief(history: History) -> list[str]:
    """What the sampler's process holds of the space; none unless the sampler is `mfgp`."""
    if history.space is None or history.stored.get("sweep", {}).get("sampler") != "mfgp":
        return []
    from pipeline.training.balance import is_over  # here, because it imports torch

    known = history.space.search
    trials = [
        (
            {n: v for n, v in trial.params.items() if n in known and known[n].contains(v)},
            {record.kimg: record.objective for record in trial.records},
            is_over(trial.records),
        )
        for trial in history.trials
        if trial.state != "failed"
    ]
    found = belief_of(history.space, trials)
    if found is None:
        return [f"It has not learned yet: fewer than {STARTUP} trials have reported."]
    point = ", ".join(f"{name} = {short_number(value)}" for name, value in found.point.items())
    first, second, third, *_ = (*found.parameters, "", "")
    most = ", ".join(filter(None, (first, second, third)))
    spread = f"{found.low:.3g} to {found.high:.3g}"
    return [
        f"It believes that these decide most: {most}.",
        f"It expects the lowest fid, {found.fid:.3g} ({spread}) at a trial's end, at {point}.",
    ]


def what_won(history: History) -> list[str]:
    """The winner or leader, its fid and balance, its margin, and the second opinion on it."""
    winner = history.winner
    if winner is None or winner.fid is None:
        return ["No trial has a fid yet."]
    verb = "won" if history.summary and history.summary.state == "finished" else "leads so far"
    fid = _fid_of(winner, history.finalist(winner))
    best = history.best or winner
    balance = "unknown" if best.balance is None else f"{best.balance:.2f}"
    at = f"{short_number(best.kimg)} of {history.full_kimg or '?'} kimg"
    opinion = history.summary.second_opinion if history.summary else None
    return [
        f"Trial {winner.number} {verb}: {fid}, balance {balance} at {at}.",
        *_margin(history, winner),
        *([f"A second opinion, in {opinion.extractor}: {opinion.text}."] if opinion else []),
    ]


def _fid_of(winner: TrialView, final: FinalistRow | None) -> str:
    """`fid 25.09 in [24.46, 25.71] of 5000 samples (24.61 during the search)`."""
    if final is None or final.measurement.fid is None:
        return f"fid {winner.fid:.4g} measured during the search"
    measured, mean = final.measurement, _mean(final)
    text = f"{measured.fid:.4g} in [{measured.fid_low:.4g}, {measured.fid_high:.4g}]"
    text += f" of {measured.n} samples ({final.best.search_fid:.4g} during the search)"
    return f"fid {mean}, its best run {text}" if mean else f"fid {text}"


def _mean(final: FinalistRow) -> str:
    """The mean fid of a finalist over its seeds: `0.77 on average of 3 seeds`; empty for a single seed."""
    seeds = sum(run.fid is not None for run in final.runs)
    mean = final.best.fid_mean
    return f"{mean:.4g} on average of {seeds} seeds" if mean is not None and seeds > 1 else ""


def _margin(history: History, winner: TrialView) -> list[str]:
    """The runner-up: the second finalist, or the second trial of the search if there are no finalists."""
    ours, second = history.finalist(winner), next(iter(history.finalists[1:]), None)
    if ours is not None and second is not None:
        overlap = second.measurement.fid_low <= ours.measurement.fid_high
        comparison = "their intervals overlap: call it a tie" if overlap else "their intervals are apart"
        fid = _mean(second) or f"{second.best.fid:.4g}"
        return [f"Trial {second.best.trial} comes next with {fid}; {comparison}."]
    others = [trial for trial in history.measured if trial != winner]
    if not others or not winner.fid:
        return []
    return [f"Trial {others[0].number} comes next with {others[0].fid:.4g} (measured during the search)."]


def shared_values(history: History) -> list[str]:
    """What the best trials have in common, as one sentence; none if they are too few."""
    best = best_trials(history)
    if len(best) < MIN_TRIALS:
        return []
    texts = [_common(region, len(best)) for region in regions(history, best)]
    shown = "; ".join(text for text in texts if text)
    return [f"The {len(best)} best trials have in common: {shown}."] if shown else []


def _common(region: Region, count: int) -> str:
    if region.counts:
        choice, most = next(iter(region.counts.items()))
        return f"{region.name} = {short_number(choice)} ({most} of {count})" if most > count / 2 else ""
    return f"{region.name} from {short_number(region.low)} to {short_number(region.high)}"


def what_lost(history: History) -> list[str]:
    """How many trials ended in each state, and which have each kind of problem."""
    kinds = _trials_by_kind(history)
    states = Counter(trial.state for trial in history.trials)
    counted = ", ".join(f"{count} {state or 'unknown'}" for state, count in states.most_common())
    lines = [f"{len(history.trials)} trials: {counted or 'none'}."]
    for kind, (words, _) in _ADVICE_BY_KIND.items():
        if numbers := kinds.get(kind):
            shown = ", ".join(map(str, numbers[:12])) + (", ..." if len(numbers) > 12 else "")
            lines.append(f"{len(numbers)} {words}: {'trials' if numbers[1:] else 'trial'} {shown}.")
    return lines


def _trials_by_kind(history: History) -> dict[str, list[int]]:
    """The numbers of the trials that have each kind of reason, without the winner."""
    kinds: dict[str, list[int]] = {}
    for trial in sorted(history.trials, key=lambda trial: trial.number):
        if trial != history.winner:
            for reason in find_reasons(history, trial):
                kinds.setdefault(reason.kind, []).append(trial.number)
    return kinds


def _common_problems(history: History) -> list[str]:
    """Advice against each problem of at least a fifth of the trials."""
    kinds, total = _trials_by_kind(history), len(history.trials)
    return [
        f"{len(kinds[kind])} of {total} trials {problem}: {advice}."
        for kind, (problem, advice) in _ADVICE_BY_KIND.items()
        if kinds.get(kind) and 5 * len(kinds[kind]) >= total
    ]


def _widen(found: Sequence[Region]) -> list[str]:
    text = "{}: the best trials lean on its {} bound {}; widen it."
    return [text.format(r.name, r.hit, short_number(r.bound)) for r in found if r.hit]


def _longer(history: History) -> list[str]:
    winner, full = history.winner, history.full_kimg
    if winner is None or full is None or winner.kimg != full:
        return []
    falling = "falling" in [reason.kind for reason in find_reasons(history, winner)]
    return [f"The winner was best at its very end: train longer (--kimg {2 * full})."] if falling else []


def _narrow(found: Sequence[Region]) -> list[str]:
    """Where the best trials lie: one sentence for the choices that they share, one for the ranges."""
    same = [r for r in found if len(r.counts) == 1 and len(r.distribution.choices) > 1]
    shared = [f"{r.name} = {short_number(r.at)}" for r in same]
    inside = [r for r in found if not r.counts and not r.hit]
    spans = [f"{r.name} in {short_number(r.low)} to {short_number(r.high)}" for r in inside]
    lines = [f"The best trials all have {', '.join(shared)}."] if shared else []
    return lines + ([f"The best trials lie at {', '.join(spans)}."] if spans else [])


def _advice_of(reasons: Sequence[Reason]) -> Section:
    found = [_sentence(reason.advice) for reason in reasons if reason.advice]
    nothing = "Nothing for this trial alone; see the sweep: `gansweep explain SWEEP_DIR`."
    return "What to try", found or [nothing]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
