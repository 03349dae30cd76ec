"""The verdict at the top of the report, over all the ways in which a sweep can end."""

from __future__ import annotations

from typing import Any

import pytest
from histories import bare_trial, best_of, finalist_row, finished_sweep, history_of, trial_view

from pipeline.reporting.explain.verdict import judge

CHAMPION = {"name": "x", "version": 3, "alias": "champion", "uri": "models:/x/3", "reason": "first"}
NONE = {**CHAMPION, "alias": None, "reason": "withheld: reasons"}
OPINION = {"extractor": "dinov2", "hash": "h", "samples": 9, "trial": 7, "agrees": False, "text": "disagrees"}
COPIES = {"memorisation": "copies", "copied": 0.031, "verdicts": ["copies: 3%"]}
COLLAPSE = {"collapse": "collapsed", "modes": 6, "modes_total": 10, "duplicates": 0.25, "verdicts": ["c"]}


def won(gap: float | None = None, registered: Any = None, measured: Any = (), **summary: Any) -> Any:
    """A finished sweep that trial 0 has won with fid 20 +- 0.5."""
    row = finalist_row(0, 20.0, 19.5, 20.5)
    row["best"]["gap"] = gap
    row["measurement"].update({"memorisation": "ok", "collapse": "ok", **dict(measured)})
    return finished_sweep(best=best_of(0), finalists=[row], registered=registered, **summary)


def failed_sweep() -> Any:
    return history_of(*(bare_trial(n, "failed", "out of memory") for n in (1, 2)), state="failed")


ONE = trial_view(0, [40.0, 30.0])
CASES = {
    "champion": (won(0.05, CHAMPION, second_opinion={**OPINION, "agrees": True, "trial": 0}), "good",
        "Registered as models:/x@champion",
        "No memorization, no mode collapse. During the search its fid read 0.05 too low (selection bias), "
        "within the uncertainty of 0.5. A second extractor, dinov2, agrees."),
    "bias above the uncertainty": (won(0.9, CHAMPION), "good", "Registered as models:/x@champion",
        "No memorization, no mode collapse. During the search its fid read 0.9 too low (selection bias), "
        "more than the uncertainty of 0.5."),
    "no bias": (won(-0.1, CHAMPION), "good", "Registered as models:/x@champion",
        "No memorization, no mode collapse. No selection bias: measured again, its fid is not higher than "
        "during the search."),
    "second extractor disagrees": (won(None, CHAMPION, second_opinion=OPINION), "caution",
        "Registered as models:/x@champion",
        "No memorization, no mode collapse. A second extractor, dinov2, prefers trial 7: compare their "
        "samples."),
    "candidate": (won(None, {**CHAMPION, "alias": "candidate", "reason": "fid 20 does not beat 19"}),
        "caution",
        "Registered as models:/x@candidate", "Fid 20 does not beat 19. No memorization, no mode collapse."),
    "copies": (won(None, NONE, COPIES), "bad", "Trial 0 won, but shows memorization",
        "3.1 % of its samples lie closer to a training image than 99 % of held-out images do. "
        "`models:/x/3` has no alias."),
    "copies and collapse": (won(None, NONE, {**COPIES, **COLLAPSE}), "bad",
        "Trial 0 won, but shows memorization and mode collapse",
        "3.1 % of its samples lie closer to a training image than 99 % of held-out images do. "
        "Its samples reach 6 of 10 modes, 25 % are near-duplicates. `models:/x/3` has no alias."),
    "another reason against it": (won(None, None, {"verdicts": ["too slow"]}), "bad",
        "Trial 0 won, but shows a problem", "Too slow."),
    "alias withheld": (won(None, NONE), "caution", "models:/x/3 has no alias",
        "Withheld: reasons. No memorization, no mode collapse."),
    "not registered": (won(), "good", "Trial 0 won; it is not registered",
        "`gansweep register SWEEP_DIR` registers it. No memorization, no mode collapse."),
    "registration failed": (won(state="failed"), "caution", "Trial 0 won; it is not registered",
        "`gansweep register SWEEP_DIR` registers it. No memorization, no mode collapse."),
    "running without a fid": (history_of(bare_trial(0, "running"), state="running"), "open",
        "The search is running", "No trial has a fid yet."),
    "running": (history_of(ONE, state="running"), "open", "Trial 0 leads; the search is running",
        "Its fid is the one measured during the search. Afterwards the best trials are measured again with "
        "fresh samples, and checked for memorization and mode collapse."),
    "interrupted": (history_of(ONE, state="interrupted"), "open",
        "Trial 0 leads; the search was interrupted",
        "Its fid is the one measured during the search. Afterwards the best trials are measured again with "
        "fresh samples, and checked for memorization and mode collapse. "
        "`gansweep resume SWEEP_DIR` continues the search."),
    "finalists not measured": (history_of(ONE, state="failed"), "bad",
        "No champion: trial 0 leads, but unconfirmed",
        "The best trials could not be measured again, so there is no champion."),
    "finished without finalists": (history_of(ONE, state="finished"), "caution",
        "Trial 0 leads; it was not measured again", "Its fid is that of the search."),
    "all trials failed": (failed_sweep(), "bad", "No champion",
        "No trial has a fid. 2 of 2 trials failed: out of memory."),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_verdict(name: str) -> None:
    history, level, headline, sentences = CASES[name]
    found = judge(history)
    assert (found.level, found.headline) == (level, headline)
    assert " ".join(found.sentences) == sentences


def test_checks_that_were_not_made_are_not_called_passed() -> None:
    row = finalist_row(0, 20.0, 19.5, 20.5)
    found = judge(finished_sweep(best=best_of(0), finalists=[row], registered=CHAMPION))
    assert found.sentences == ("Memorization and mode collapse: not measured.",)
