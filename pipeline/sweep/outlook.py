"""What a sweep that exists has used, what its bounds leave, and what one more hour of it should bring."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config import SweepConfig
from pipeline.errors import SweepError
from pipeline.reporting.history import History, read_history
from pipeline.search.budgets import UNLIMITED, Usage, budget_reached
from pipeline.search.expected_gain import PLATEAU_TRIALS
from pipeline.storage.readable import clock
from pipeline.storage.summary_file import ExpectedGain
from pipeline.sweep.request import Request
from pipeline.sweep.result import Rows


def outlook(request: Request) -> Rows:
    """Rows of (heading, text) on the sweep that `request` would go on with; writes nothing."""
    try:
        history = read_history(request.paths.root)
    except SweepError:  # killed before its first trial
        return (("so far", "nothing: no trial has begun"),)
    usage, more = _used(history), history.one_more_hour
    fid = "no fid" if usage.best_fid is None else f"best fid {usage.best_fid:.4g}"
    state, ended, begun = _counts(history)
    return (
        (
            "so far",
            f"{state}: {ended} {'trial' if ended == 1 else 'trials'} in {clock(usage.seconds)}, {fid}",
        ),
        ("left", ", ".join(_left(request.config, usage, begun))),
        ("one more hour", f"{more}{_basis(more)}"),
    )


def _counts(history: History) -> tuple[str, int, int]:
    """The state of the sweep, the trials that have ended, and those that have begun."""
    if summary := history.summary:
        return summary.state, summary.trials.ended, summary.trials.ended + summary.trials.running
    ended = sum(trial.state not in ("", "running") for trial in history.trials)
    return "no summary.json", ended, len(history.trials)


def _used(history: History) -> Usage:
    """What the search has used; without a summary.json only the fids are known."""
    summary, fids = history.summary, [trial.fid for trial in history.trials if trial.fid is not None]
    best, plateau = min(fids, default=None), history.one_more_hour.plateau
    if summary is None:
        return Usage(best_fid=best, plateau=plateau)
    cost, failures = summary.cost or 0.0, summary.trials.failed
    return Usage(summary.wall_seconds, summary.gpu_hours, cost, failures, best, plateau)


def _left(config: SweepConfig, used: Usage, begun: int) -> Iterator[str]:
    """What each bound of `config` leaves; last, whether nothing is left. begun: trials."""
    trials = max(config.trials - begun, 0)
    if config.trials < UNLIMITED:
        yield f"{trials} of {config.trials} trials"
    if budget := config.time_budget_sec:
        yield f"{clock(max(budget - used.seconds, 0))} of {clock(budget)}"
    for name, bound, spent in (
        ("GPU hours", config.gpu_hours, used.gpu_hours),
        ("cost", config.cost_budget, used.cost),
        ("failures", config.max_failures, used.failures),
    ):
        if bound:
            yield f"{max(bound - spent, 0):.4g} of {bound:g} {name}"
    if config.target_fid:
        yield f"until a fid of {config.target_fid:g}"
    if config.until_plateau:
        yield f"until an hour brings less than {config.until_plateau:g} % ({PLATEAU_TRIALS} trials at least)"
    met = budget_reached(config, used)
    if met or not trials:
        yield f"so no new trial begins: {met[1] if met else 'raise --trials'}"


def _basis(more: ExpectedGain) -> str:
    """What an estimate rests on: `; from 34 trials, 120 an hour`; empty where there is none."""
    if more.trials_per_hour is None:
        return ""
    rough = ", so it is rough" if more.trials_per_hour > more.trials else ""
    return f"; from {more.trials} trials, {more.trials_per_hour:.3g} an hour{rough}"
