"""What early stopping saved in a sweep, and how much was trained in vain."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.reporting.history import History

MEANINGS = {
    "trained": "kimg of all trials together",
    "trial time": "hours of training and measuring of all trials together",
    "after the best": "trained after the tick of a trial's best fid: its best generator did not need it",
    "saved": "kimg that trials stopped early were short of a full trial",
    "saved time": "the same in hours, at the speed of each of those trials",
}


@dataclass(frozen=True)
class Savings:
    """Sums over all trials, in kimg and hours (`MEANINGS`); useful + after_best = trained."""

    useful: float
    after_best: float
    saved: float
    hours: float
    saved_hours: float

    @property
    def trained(self) -> float:
        """kimg of all trials together."""
        return self.useful + self.after_best


def compute_savings(history: History) -> Savings:
    """Add up all trials; the kimg that a running trial has left count as neither spent nor saved."""
    full = history.full_kimg or 0
    useful = after = saved = hours = saved_hours = 0.0
    for trial in history.trials:
        best = trial.kimg or 0.0
        useful, after = useful + best, after + max(0.0, trial.last_kimg - best)
        hours += trial.seconds / 3600
        if trial.state == "pruned" and trial.last_kimg < full:
            saved += full - trial.last_kimg
            hours_per_kimg = trial.seconds / 3600 / trial.last_kimg if trial.last_kimg else 0.0
            saved_hours += hours_per_kimg * (full - trial.last_kimg)
    return Savings(useful, after, saved, hours, saved_hours)
