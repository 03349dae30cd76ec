"""TOML text or tables to a checked space; files are found by `pipeline.search.space.builtin`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from pipeline.errors import SpaceError, nearest
from pipeline.search.space.conditions import sort_by_conditions
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import check_fixed
from pipeline.search.space.points import check_point
from pipeline.search.space.ranges import read_distribution
from pipeline.search.space.rules import read_rules

_TABLES = ("fixed", "search", "enqueue", "rule")
_PORTFOLIO = "portfolio"


def parse_space(text: str, name: str = "space") -> Space:
    """Check the TOML text of a space. name: of the file, for the text of an error.

    Raises:
        SpaceError: it is not TOML or not a valid space.
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: not TOML, or a number of 5,000 digits
        raise SpaceError(f"{name} is not valid TOML", seen=str(error), fix="correct that line") from error
    return space_from_tables(tables, name)


def space_from_tables(tables: Mapping[str, Any], name: str = "space") -> Space:
    """Check the tables of a space; raises as `parse_space` does."""
    for table in tables:
        if table not in (*_TABLES, _PORTFOLIO):
            rule = "a space has the tables [fixed], [search], [[enqueue]] and [[rule]], and portfolio = true"
            fix = nearest(table, (*_TABLES, _PORTFOLIO))
            raise SpaceError(f"{name}: {{seen}} is unknown", rule=rule, seen=f"[{table}]", fix=fix)
    fixed, search, points = tables.get("fixed", {}), tables.get("search", {}), tables.get("enqueue", [])
    if not isinstance(fixed, dict):
        raise SpaceError(f"{name}: fixed is no table", seen=fixed, fix="write [fixed], then key = value")
    if not isinstance(search, dict) or not search:
        rule = "a table [search] with at least one is needed"
        fix = "add for example: lr_g = { float = [1e-5, 1e-2], log = true }"
        raise SpaceError(f"{name}: no parameter is searched", rule=rule, seen=search or None, fix=fix)
    if not isinstance(points, list) or not all(isinstance(p, dict) for p in points):
        raise SpaceError(f"{name}: enqueue is no list of tables", seen=points, fix="write [[enqueue]]")
    portfolio = tables.get(_PORTFOLIO, False)
    if not isinstance(portfolio, bool):
        rule, fix = "it is true or false", "write portfolio = true above the first table"
        raise SpaceError(f"{name}: portfolio = {{seen}} is wrong", rule=rule, seen=portfolio, fix=fix)
    fixed = check_fixed(fixed, f"{name} [fixed]")
    drawn = {key: read_distribution(key, value, f"{name} [search]") for key, value in search.items()}
    for both in sorted(fixed.keys() & drawn.keys()):
        problem = f"{name}: {{seen}} is both fixed and searched"
        raise SpaceError(problem, seen=both, fix="keep one of the two")
    ordered = sort_by_conditions(drawn, fixed, name)
    points = tuple(check_point(point, ordered, fixed, f"{name} [[enqueue]]") for point in points)
    rules = read_rules(tables.get("rule", []), f"{name} [[rule]]")
    return Space(fixed=fixed, search=ordered, enqueue=points, rules=rules, portfolio=portfolio)
