"""The configuration that takes the most memory and time of all that a space can draw."""

from __future__ import annotations

from typing import Any

from pipeline.config import TrialConfig
from pipeline.search.space.definition import Space

_COST_ORDER = {
    "architecture": ("mlp", "dcgan", "resnet"),
    "penalty": ("none", "dragan", "gp", "r1", "r1r2"),
    "precision": ("bfloat16", "float32"),
    "norm_g": ("none", "batch"),
    "norm_d": ("none", "batch", "layer", "spectral"),
    "augment": ("none", "diffaugment", "ada"),
    "loss": ("minimax", "nonsaturating", "hinge", "lsgan", "wasserstein", "relativistic"),
}
"""Choices from the cheapest to the most expensive; an unlisted one (a custom network) counts as most."""

_CHEAPER_IF_HIGH = ("penalty_interval", "tick_kimg")
"""Numbers that cost less the higher they are."""


def largest_config(space: Space) -> TrialConfig:
    """The configuration that takes the most memory and time of all that the space can draw.

    Every number at its more expensive end, every choice the most expensive; conditions are respected.
    """
    point: dict[str, Any] = {}
    for name, d in space.search.items():
        if not space.active(name, point):
            continue
        if d.choices:
            point[name] = max(d.choices, key=lambda choice, name=name: _cost(name, choice))  # type: ignore[misc]
        else:
            end = d.low if name in _CHEAPER_IF_HIGH else d.high
            point[name] = int(end) if d.whole else end
    return space.config(point)


def _cost(name: str, choice: Any) -> float:
    if isinstance(choice, str):
        order = _COST_ORDER.get(name, ())
        return float(order.index(choice) if choice in order else len(order))
    return -float(choice) if name in _CHEAPER_IF_HIGH else float(choice)
