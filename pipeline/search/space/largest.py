"""The configuration that takes the most memory and time of all that a space can draw."""

from __future__ import annotations

from pipeline.config import TrialConfig
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import Value
from pipeline.tables import Table

_CHEAPER_IF_HIGH = ("penalty_interval", "tick_kimg")
"""Numbers that cost less the higher they are."""


def largest_config(space: Space) -> TrialConfig:
    """The configuration that takes the most memory and time of all that the space can draw.

    Every number at its more expensive end, every choice the most expensive; conditions are respected.
    """
    point: dict[str, Value] = {}
    for name, d in space.search.items():
        if not space.active(name, point):
            continue
        if d.choices:
            point[name] = max(d.choices, key=lambda choice, name=name: _cost(name, choice))  # type: ignore[misc]
        else:
            end = d.low if name in _CHEAPER_IF_HIGH else d.high
            point[name] = int(end) if d.whole else end
    return space.config(point)


def _cost(name: str, choice: str | float) -> float:
    """Orders the choices of a hyper-parameter by expense: by its table, or as `TrialConfig` lists them."""
    if not isinstance(choice, str):
        return -float(choice) if name in _CHEAPER_IF_HIGH else float(choice)
    choices = TrialConfig.fields()[name].metadata["choices"]
    return choices.cost(choice) if isinstance(choices, Table) else float(choices.index(choice))
