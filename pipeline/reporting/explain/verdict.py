"""Whether the champion of a sweep can be used, in words: one headline, and the sentences behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.reporting.history import History
from pipeline.storage.readable import finite
from pipeline.storage.summary_file import FinalistRow, FinalMeasurement

Level = Literal["good", "caution", "bad", "open"]
"""open: the search has not ended."""


@dataclass(frozen=True)
class Verdict:
    """The state of a sweep's champion for a reader in a hurry.

    headline: without a full stop. sentences: why, the most important first; a word in backquotes is code.
    """

    level: Level
    headline: str
    sentences: tuple[str, ...]


def judge(history: History) -> Verdict:
    """The verdict on the champion, or why there is none yet."""
    winner = history.winner
    state = history.summary.state if history.summary else ""
    if winner is None or winner.fid is None:
        return _no_champion(history, state)
    if not history.finalists:
        return _not_measured(winner.number, state)
    return _measured(history, winner.number, state)


def _no_champion(history: History, state: str) -> Verdict:
    if state == "running":
        return Verdict("open", "The search is running", ("No trial has a fid yet.",))
    causes = Counter(trial.cause for trial in history.trials if trial.state == "failed" and trial.cause)
    why = [
        f"{count} of {len(history.trials)} trials failed: {text}." for text, count in causes.most_common(1)
    ]
    return Verdict("bad", "No champion", ("No trial has a fid.", *why))


def _not_measured(number: int, state: str) -> Verdict:
    leads = f"Trial {number} leads"
    later = (
        "Its fid is the one measured during the search. Afterwards the best trials are measured again with "
        "fresh samples, and checked for memorization and mode collapse."
    )
    if state == "running":
        return Verdict("open", f"{leads}; the search is running", (later,))
    if state == "interrupted":
        go_on = "`gansweep resume SWEEP_DIR` continues the search."
        return Verdict("open", f"{leads}; the search was interrupted", (later, go_on))
    if state == "failed":
        no_measurement = "The best trials could not be measured again, so there is no champion."
        return Verdict(
            "bad", f"No champion: {leads[0].lower()}{leads[1:]}, but unconfirmed", (no_measurement,)
        )
    return Verdict("caution", f"{leads}; it was not measured again", ("Its fid is that of the search.",))


def _measured(history: History, number: int, state: str) -> Verdict:
    final = history.finalists[0]
    faults = list(_faults(final.measurement))
    rest = [_no_faults(final.measurement)] if not faults else []
    rest += [*_bias(final), *_opinion(history)]
    version = history.summary.registered if history.summary else None
    opinion = history.summary.second_opinion if history.summary else None
    agrees = opinion is None or opinion.agrees
    if faults:
        held = f"`{version.uri}` has no alias." if version and not version.alias else ""
        sentences = filter(None, [f"{_capital(fault[1])}." for fault in faults] + [held, *rest])
        name = " and ".join(fault[0] for fault in faults)
        return Verdict("bad", f"Trial {number} won, but shows {name}", tuple(sentences))
    if version is None:
        again = "`gansweep register SWEEP_DIR` registers it."
        headline = f"Trial {number} won; it is not registered"
        return Verdict("caution" if state == "failed" or not agrees else "good", headline, (again, *rest))
    if version.alias is None:
        return Verdict("caution", f"{version.uri} has no alias", (_reason(version.reason), *rest))
    level: Level = "good" if version.alias == "champion" and agrees else "caution"
    why = () if version.alias == "champion" else (_reason(version.reason),)
    return Verdict(level, f"Registered as {version.model}", (*why, *rest))


def _faults(found: FinalMeasurement) -> Iterator[tuple[str, str]]:
    """The reasons against promotion: a name in the field's words, and a sentence without its full stop."""
    values = found.values
    if values.get("memorisation", "ok") != "ok":
        share = finite(values.get("copied"))
        amount = "some" if share is None else f"{100 * share:.2g} %"
        yield (
            "memorization",
            (f"{amount} of its samples lie closer to a training image than 99 % of held-out images do"),
        )
    if values.get("collapse", "ok") != "ok":
        yield (
            "mode collapse",
            (
                f"its samples reach {values.get('modes', '?')} of {values.get('modes_total', '?')} modes, "
                f"{100 * (finite(values.get('duplicates')) or 0.0):.2g} % are near-duplicates"
            ),
        )
    if values.get("memorisation", "ok") == values.get("collapse", "ok") == "ok":
        yield from (("a problem", text.rstrip(".")) for text in found.verdicts)


def _no_faults(found: FinalMeasurement) -> str:
    checked = {"memorisation", "collapse"} <= found.values.keys()
    return (
        "No memorization, no mode collapse." if checked else "Memorization and mode collapse: not measured."
    )


def _bias(final: FinalistRow) -> list[str]:
    """How much too low the fid of the search was: the best of many noisy numbers is too good on average."""
    gap, width = final.best.gap, (final.measurement.fid_high - final.measurement.fid_low) / 2
    if gap is None:
        return []
    if gap <= 0:
        return ["No selection bias: measured again, its fid is not higher than during the search."]
    size = "within" if gap < width else "more than"
    during = f"During the search its fid read {gap:.2g} too low (selection bias)"
    return [f"{during}, {size} the uncertainty of {width:.2g}."]


def _opinion(history: History) -> list[str]:
    opinion = history.summary.second_opinion if history.summary else None
    if opinion is None:
        return []
    if opinion.agrees:
        return [f"A second extractor, {opinion.extractor}, agrees."]
    return [f"A second extractor, {opinion.extractor}, prefers trial {opinion.trial}: compare their samples."]


def _reason(text: str) -> str:
    return _capital(text.rstrip(".")) + "." if text else "No alias was asked for."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
