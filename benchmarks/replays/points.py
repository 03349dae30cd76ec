"""Points that move from one table's space to another's: what the portfolio is made of.

Width and the half-life of the average are relative to a space, and the strength of the penalty to the images
(gamma * batch size / pixels, as StyleGAN2-ADA's rule has it): see `pipeline.search.space.portfolio`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.search.space.portfolio import load_portfolio, point_in_space
from replays.world import Table

SIZES = {"digits": 8, "mnist5k": 28, "icons": 32}
"""Side of a table's images in pixels."""
WITHOUT = Path(__file__).parents[1] / "tables" / "portfolio"
"""Folder of the portfolios that were chosen without one of the tables, to be judged on it."""
_OF_RANGE = ("width_g", "width_d")
_OWN = ("depth_g", "depth_d")
"""Of one architecture alone."""


def shared_point(params: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """A configuration of a table as a point of a portfolio."""
    size, kimg = SIZES[table.name], table.full_kimg
    point: dict[str, Any] = {}
    for name, value in params.items():
        if name in _OF_RANGE:
            point[name] = {"of_range": round(table.space.search[name].to_unit(value), 2)}
        elif name == "ema_halflife_kimg":
            point[name] = {"of_trial": significant(value / kimg)}
        elif name == "gamma":
            factor = significant(value * params["batch_size"] / size**2)
            point[name] = {"factor": factor, "size": 2, "batch_size": -1}
        elif name not in _OWN:
            point[name] = value if table.space.search[name].choices else significant(value)
    return point


def significant(value: float) -> float:
    """Two significant digits: more would be noise."""
    return float(f"{value:.2g}")


def points_of(table: Table, portfolio: Path) -> list[dict[str, Any]]:
    """A portfolio's points in the space of a table."""
    size = SIZES[table.name]
    return [point_in_space(p, table.space.search, table.space.fixed, size) for p in load_portfolio(portfolio)]


def points_without(table: Table) -> list[dict[str, Any]]:
    """The portfolio that was chosen without this table, in its space."""
    return points_of(table, WITHOUT / f"without-{table.name}.toml")
