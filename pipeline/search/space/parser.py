"""TOML text or tables to a checked space; files are found by `pipeline.search.space.builtin`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from pipeline.config import TrialConfig
from pipeline.errors import SpaceError, nearest
from pipeline.search import recipes
from pipeline.search.space.conditions import sort_by_conditions
from pipeline.search.space.definition import Space
from pipeline.search.space.distribution import (
    Distribution,
    Value,
    check_drawable,
    check_fixed,
    check_in_range,
    field_of,
)
from pipeline.search.space.toml import dump_value

_TABLES = ("fixed", "search", "enqueue")
_KINDS = ("float", "int", "choice")
_NOT_SEARCHED = ("kimg", "tick_kimg", "seed")  # trials are compared at equal kimg; a seed is no quality


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
        if table not in _TABLES:
            rule, fix = "a space has the tables [fixed], [search] and [[enqueue]]", nearest(table, _TABLES)
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
    fixed = check_fixed(fixed, f"{name} [fixed]")
    drawn = {key: _distribution(key, value, f"{name} [search]") for key, value in search.items()}
    for both in sorted(fixed.keys() & drawn.keys()):
        problem = f"{name}: {{seen}} is both fixed and searched"
        raise SpaceError(problem, seen=both, fix="keep one of the two")
    ordered = sort_by_conditions(drawn, fixed, name)
    points = tuple(_check_point(point, ordered, fixed, f"{name} [[enqueue]]") for point in points)
    return Space(fixed=fixed, search=ordered, enqueue=points)


def _distribution(name: str, value: Any, where: str) -> Distribution:
    kind = str(field_of(name, where).type)
    if name in _NOT_SEARCHED:
        rule, fix = "it must be the same for all trials", "put it in [fixed]"
        raise SpaceError(f"{where}: {{seen}} cannot be searched", rule=rule, seen=name, fix=fix)
    form = f"{name} = {{ float|int = [low, high] }} or {{ choice = [...] }}"
    if not isinstance(value, dict) or len(value.keys() & set(_KINDS)) != 1:
        raise SpaceError(f"{where}: {name} = {{seen}} is no distribution", seen=value, fix=f"write {form}")
    for key in value:
        if key not in (*_KINDS, "log", "when"):
            fix = nearest(key, (*_KINDS, "log", "when"))
            raise SpaceError(f"{where}: {{seen}} is no key of a distribution", seen=f"{name}.{key}", fix=fix)
    when = _when(name, value.get("when", {}), where)
    if "choice" in value:
        choices = value["choice"]
        if not isinstance(choices, list) or not choices or "log" in value:
            rule, fix = "choice is a list of values, without log", f"write {form}"
            raise SpaceError(f"{where}: {name} = {{seen}} is no choice", rule=rule, seen=value, fix=fix)
        return Distribution(choices=tuple(check_in_range(name, c, where) for c in choices), when=when)
    return _range(name, value, kind, when, where)


def _range(
    name: str, value: Mapping[str, Any], wanted: str, when: Mapping[str, tuple[Value, ...]], where: str
) -> Distribution:
    kind = "int" if "int" in value else "float"
    bounds, log = value[kind], value.get("log", False)
    if wanted != kind:
        fix = f"{name} takes {{ {'choice' if wanted in ('str', 'bool') else wanted} = [...] }}"
        raise SpaceError(f"{where}: {{seen}} has the wrong type", seen=f"{name}.{kind}", fix=fix)
    if not isinstance(bounds, list) or len(bounds) != 2 or not isinstance(log, bool):
        rule, fix = f"{kind} is [low, high] and log is true or false", f"correct {name}"
        raise SpaceError(f"{where}: {name} = {{seen}} is no range", rule=rule, seen=value, fix=fix)
    low, high = (check_in_range(name, bound, where) for bound in bounds)
    if not low < high:
        rule, fix = "the low bound is below the high one", "swap them" if low > high else "put it in [fixed]"
        raise SpaceError(f"{where}: {name} = {{seen}} is empty", rule=rule, seen=bounds, fix=fix)
    if log and low <= 0:
        rule, fix = "a log scale begins above 0", "raise the bound"
        raise SpaceError(f"{where}: {name} = {{seen}} has no log scale", rule=rule, seen=bounds, fix=fix)
    return Distribution(low=low, high=high, whole=kind == "int", log=log, when=when)


def _when(name: str, value: object, where: str) -> dict[str, tuple[Value, ...]]:
    if not isinstance(value, dict) or not all(isinstance(v, list) and v for v in value.values()):
        rule, fix = "when is { other = [values] }", f"correct {name}.when"
        raise SpaceError(f"{where}: {name}.when = {{seen}} cannot be read", rule=rule, seen=value, fix=fix)
    return {other: tuple(check_in_range(other, v, where) for v in values) for other, values in value.items()}


def _check_point(
    point: Mapping[str, object], search: Mapping[str, Distribution], fixed: Mapping[str, Value], where: str
) -> dict[str, Value]:
    checked = {}
    for name, value in point.items():
        if name == "recipe":
            continue
        field_of(name, where)
        if name not in search:
            raise SpaceError(f"{where}: {{seen}} is not searched", seen=name, fix=nearest(name, search))
        checked[name] = check_drawable(name, check_in_range(name, value, where), search[name], where)
    return _with_recipe(point["recipe"], checked, search, fixed, where) if "recipe" in point else checked


def _with_recipe(
    named: object,
    point: Mapping[str, Value],
    search: Mapping[str, Distribution],
    fixed: Mapping[str, Value],
    where: str,
) -> dict[str, Value]:
    """The point with the values of its recipe.

    `recipe` stays in the point if some of its values depend on the images: see `Space.on_images`.
    """
    if not isinstance(named, str):
        raise SpaceError(f"{where}: recipe = {{seen}} is no name", seen=named, fix="write recipe = 'sngan'")
    recipe = recipes.load_recipe(named)
    values = {name: value for name, value in recipe.values.items() if name not in point}
    known = {**TrialConfig().to_dict(), **fixed}
    lacking = [f"{n} = {dump_value(v)}" for n, v in values.items() if n not in search and known[n] != v]
    lacking += [f"{n} (set by the images)" for n in recipe.auto if n not in search and n not in point]
    if lacking:
        problem = f"{where}: the space lacks what recipe {named} sets"
        rule = "the space must search or fix all of that"
        fix = "add these, or start the whole sweep from it with --recipe"
        raise SpaceError(problem, rule=rule, seen=", ".join(lacking), fix=fix)
    searched = {n: check_drawable(n, v, search[n], where) for n, v in values.items() if n in search}
    by_images = [n for n in (*recipe.auto, *recipe.labelled) if n in search and n not in point]
    return {**searched, **point, **({"recipe": named} if by_images else {})}
