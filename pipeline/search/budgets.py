"""When a search has had enough: time, GPU hours, money, failures, a fid that is good enough, or a plateau.

Responsible for the bounds and for prices; `TrialManager` measures what is used and ends the search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import SweepConfig
from pipeline.errors import ConfigError, nearest
from pipeline.storage.readable import readable_percent

UNLIMITED = 100_000
"""Trials of a sweep that only another bound ends."""

_PRICED = ("cpu", "gpu")


@dataclass(frozen=True)
class Usage:
    """What a search has used and reached so far.

    gpu_hours, cost: summed over trials. plateau: see `ExpectedGain`; None = too little is known.
    """

    seconds: float = 0.0
    gpu_hours: float = 0.0
    cost: float = 0.0
    failures: int = 0
    best_fid: float | None = None
    plateau: float | None = None


def budget_reached(config: SweepConfig, usage: Usage) -> tuple[str, str] | None:
    """The first bound of `config` that `usage` meets: its field, and a reason for people.

    A bound of 0 means that there is none.
    """
    bounds = (
        ("time_budget_sec", usage.seconds, f"time budget of {config.time_budget_sec:g} s is spent"),
        ("gpu_hours", usage.gpu_hours, f"budget of {config.gpu_hours:g} GPU hours is spent"),
        ("cost_budget", usage.cost, f"cost budget of {config.cost_budget:g} is spent ({usage.cost:.4g})"),
        ("max_failures", usage.failures, f"{usage.failures} trials failed (--max-failures)"),
    )
    for name, used, reason in bounds:
        if 0 < getattr(config, name) <= used:
            return name, reason
    fid, target = usage.best_fid, config.target_fid
    if target > 0 and fid is not None and fid <= target:
        return "target_fid", f"fid {fid:.4g} reached the target of {target:g}"
    if usage.plateau is not None and 100 * usage.plateau < config.until_plateau:
        gain, least = readable_percent(usage.plateau), f"less than {config.until_plateau:g} %"
        return "until_plateau", f"one more hour should lower fid by at most {gain}, {least} (--until-plateau)"
    return None


def parse_prices(text: str) -> dict[str, float]:
    """Read `gpu=2.5,cpu=0.05` as prices per hour, by name.

    Raises:
        ConfigError: a name is neither cpu nor gpu, or a price is no number from 0.
    """
    prices = parse_amounts(text, "--price", "gpu=2.5,cpu=0.05")
    for name in [name for name in prices if name not in _PRICED]:
        fix = nearest(name, _PRICED)
        raise ConfigError("--price {seen} is unknown", rule="cpu and gpu have a price", seen=name, fix=fix)
    return prices


def parse_amounts(text: str, flag: str, example: str) -> dict[str, float]:
    """Read `name=1,other=0.5` as numbers from 0, by name. flag, example: for the error's text.

    Raises:
        ConfigError: a part is not NAME=NUMBER.
    """
    amounts: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (word.strip() for word in part.partition("="))
        try:
            amounts[name] = float(number)
        except ValueError:
            amounts[name] = math.nan
        if not name or not 0 <= amounts[name] < math.inf:
            rule, fix = "each part is NAME=NUMBER, from 0", f"write {flag} {example}"
            raise ConfigError(f"{flag} {{seen}} cannot be read", rule=rule, seen=part, fix=fix)
    return amounts


def check_budgets(config: SweepConfig) -> None:
    """ConfigError where a price cannot be read, or a cost is bounded that has no price."""
    prices = parse_prices(config.price)
    if config.cost_budget and not any(prices.values()):
        raise ConfigError(
            "--cost-budget is given without the price of an hour",
            seen=config.price or "no --price",
            fix="add --price gpu=2.5,cpu=0.05",
        )


def hourly_price(prices: Mapping[str, float], cpus: float, gpus: float) -> float:
    """What an hour of a trial costs that takes these cores and GPUs (or a fraction of one)."""
    return prices.get("cpu", 0.0) * cpus + prices.get("gpu", 0.0) * gpus
