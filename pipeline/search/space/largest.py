"""The configuration that takes the most memory and time of all that a space can draw."""

from __future__ import annotations

from typing import Any

from pipeline.config import TrialConfig
from pipeline.search.space.definition import Space

_HEAVIER = {
    "architecture": ("mlp", "dcgan", "resnet"),
    "penalty": ("none", "dragan", "gp", "r1", "r1r2"),
    "precision": ("bfloat16", "float32"),
    "norm_g": ("none", "batch"),
    "norm_d": ("none", "batch", "layer", "spectral"),
    "augment": ("none", "diffaugment", "ada"),
    "loss": ("minimax", "nonsaturating", "hinge", "lsgan", "wasserstein", "relativistic"),
}
"""Words from the lightest to the heaviest; what is not listed (networks of one's own) counts as heaviest."""

_LIGHTER = ("penalty_interval", "tick_kimg")
"""Numbers that cost less the higher they are."""


def largest_config(space: Space) -> TrialConfig:
    """The configuration that takes the most memory and time of all that the space can draw.

    Every number at its heavier end, every word at its heaviest; conditions are kept.
    """
    point: dict[str, Any] = {}
    for name, d in space.search.items():
        if not space.active(name, point):
            continue
        if d.choices:
            point[name] = max(d.choices, key=lambda choice, name=name: _weight(name, choice))  # type: ignore[misc]
        else:
            end = d.low if name in _LIGHTER else d.high
            point[name] = int(end) if d.whole else end
    return space.config(point)


def _weight(name: str, choice: Any) -> float:
    if isinstance(choice, str):
        order = _HEAVIER.get(name, ())
        return float(order.index(choice) if choice in order else len(order))
    return -float(choice) if name in _LIGHTER else float(choice)
