"""When a search has had enough: time, GPU hours, money, failures, or a fid that is good enough.

Owns: the bounds of a search and what each says when it is reached; prices. Refuses: measuring what is used
(`pipeline.search` does), ending anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import SweepConfig
from pipeline.errors import ConfigError, nearest

KINDS = ("cpu", "gpu")
"""What has a price: the core and the GPU, by the hour."""


@dataclass(frozen=True)
class Usage:
    """What a search has used and reached so far; hours are summed over trials, by their shares."""

    seconds: float = 0.0
    gpu_hours: float = 0.0
    cost: float = 0.0
    failures: int = 0
    best_fid: float | None = None


@dataclass(frozen=True)
class StopReason:
    """A bound that was met. by: the option's field in SweepConfig. reason: for people."""

    by: str
    reason: str


def budget_reached(plan: SweepConfig, use: Usage) -> StopReason | None:
    """The first bound of `plan` that `use` has met, or None; a bound of 0 is none."""
    bounds = (
        ("time_budget_sec", use.seconds, f"time budget of {plan.time_budget_sec:g} s is spent"),
        ("gpu_hours", use.gpu_hours, f"budget of {plan.gpu_hours:g} GPU hours is spent"),
        ("cost_budget", use.cost, f"cost budget of {plan.cost_budget:g} is spent ({use.cost:.4g})"),
        ("max_failures", use.failures, f"{use.failures} trials failed (--max-failures)"),
    )
    for name, used, reason in bounds:
        if 0 < getattr(plan, name) <= used:
            return StopReason(name, reason)
    if plan.target_fid > 0 and use.best_fid is not None and use.best_fid <= plan.target_fid:
        return StopReason("target_fid", f"fid {use.best_fid:.4g} reached the target of {plan.target_fid:g}")
    return None


def prices(text: str) -> dict[str, float]:
    """`gpu=2.5,cpu=0.05` as a price per hour of each kind.

    Raises:
        ConfigError: an unknown kind, or a price that is no number from 0.
    """
    found = amounts(text, "--price", "gpu=2.5,cpu=0.05")
    for kind in found:
        if kind not in KINDS:
            raise ConfigError("--price knows cpu and gpu", seen=kind, fix=nearest(kind, KINDS))
    return found


def amounts(text: str, flag: str, example: str) -> dict[str, float]:
    """`name=1,other=0.5` as numbers from 0.

    Raises:
        ConfigError: a part is not NAME=NUMBER.
    """
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            found[name.strip()] = math.nan
        if not name.strip() or not 0 <= found[name.strip()] < math.inf:
            raise ConfigError(f"{flag} is NAME=NUMBER, from 0", seen=part, fix=f"write {flag} {example}")
    return found


def check_budgets(plan: SweepConfig) -> None:
    """Raise ConfigError where the bounds of `plan` contradict each other."""
    known = prices(plan.price)
    if plan.cost_budget and not any(known.values()):
        raise ConfigError(
            "--cost-budget needs the price of an hour",
            seen=plan.price or "no --price",
            fix="add --price gpu=2.5,cpu=0.05",
        )


def hourly_price(known: Mapping[str, float], cpus: float, gpus: float) -> float:
    """What an hour of a trial with these shares costs."""
    return known.get("cpu", 0.0) * cpus + known.get("gpu", 0.0) * gpus
