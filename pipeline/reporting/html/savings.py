"""What early stopping saved, and what was trained for nothing: numbers of a whole sweep.

Owns: `Savings` and the meaning of its numbers. Refuses: drawing.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.reporting.history import History

MEANINGS = {
    "trained": "kimg of all trials together",
    "trial time": "hours of training and measuring of all trials together",
    "after the best": "trained after the tick of a trial's best fid: of no use to its generator",
    "saved": "kimg that trials stopped early were short of a full trial",
    "saved time": "the same in hours, at the pace of each of those trials",
}


@dataclass(frozen=True)
class Savings:
    """In kimg, and hours of trials' work. useful + after_best = trained."""

    useful: float = 0.0
    after_best: float = 0.0
    saved: float = 0.0
    hours: float = 0.0
    saved_hours: float = 0.0

    @property
    def trained(self) -> float:
        return self.useful + self.after_best


def compute_savings(history: History) -> Savings:
    """Add up all trials; what a running one may still need is neither spent nor saved."""
    full = history.full_kimg or 0
    useful = after = saved = hours = saved_hours = 0.0
    for told in history.trials:
        best = told.kimg or 0.0
        useful, after = useful + best, after + max(0.0, told.last_kimg - best)
        hours += told.seconds / 3600
        if told.state == "pruned" and told.last_kimg < full:
            saved += full - told.last_kimg
            pace = told.seconds / 3600 / told.last_kimg if told.last_kimg else 0.0
            saved_hours += pace * (full - told.last_kimg)
    return Savings(useful, after, saved, hours, saved_hours)
