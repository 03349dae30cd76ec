"""The points of [[enqueue]]: checked against what is searched, with the values of their recipes."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config import TrialConfig
from pipeline.errors import SpaceError, nearest
from pipeline.search import recipes
from pipeline.search.space.distribution import (
    Distribution,
    Value,
    check_drawable,
    check_in_range,
    field_of,
)
from pipeline.search.space.toml import dump_value


def check_point(
    point: Mapping[str, object], search: Mapping[str, Distribution], fixed: Mapping[str, Value], where: str
) -> dict[str, Value]:
    """The point with the values of its recipe.

    `recipe` stays in it if some of its values depend on the images: see `Space.on_images`.

    Raises:
        SpaceError: a value cannot be drawn, there is no such recipe, or the space lacks what that sets.
    """
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
    recipe = named_recipe(named, where)
    values = {name: value for name, value in recipe.values.items() if name not in point}
    known = {**TrialConfig().to_dict(), **fixed}
    lacking = [f"{n} = {dump_value(v)}" for n, v in values.items() if n not in search and known[n] != v]
    lacking += [f"{n} (set by the images)" for n in recipe.auto if n not in search and n not in point]
    if lacking:
        problem = f"{where}: the space lacks what recipe {recipe.name} sets"
        rule = "the space must search or fix all of that"
        fix = "add these, or start the whole sweep from it with --recipe"
        raise SpaceError(problem, rule=rule, seen=", ".join(lacking), fix=fix)
    searched = {n: check_drawable(n, v, search[n], where) for n, v in values.items() if n in search}
    by_images = [n for n in (*recipe.auto, *recipe.labelled) if n in search and n not in point]
    return {**searched, **point, **({"recipe": recipe.name} if by_images else {})}


def named_recipe(name: object, where: str) -> recipes.Recipe:
    """The recipe of a point; SpaceError where there is none of that name. where: the place in a file."""
    if not isinstance(name, str):
        raise SpaceError(f"{where}: recipe = {{seen}} is no name", seen=name, fix="write recipe = 'sngan'")
    return recipes.load_recipe(name)
