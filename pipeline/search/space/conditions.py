"""Conditions (`when`) between parameters: an order to draw them in, and which can ever be drawn."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import SpaceError, nearest
from pipeline.search.space.distribution import Distribution, Value


def sort_by_conditions(
    search: dict[str, Distribution], fixed: Mapping[str, Value], name: str
) -> dict[str, Distribution]:
    """Sort parameters so that every `when` refers to earlier ones.

    name: of the space, for errors.

    Raises:
        SpaceError: a `when` names an unknown parameter or an impossible value, or whens form a circle.
    """
    check_names_of_whens(search, fixed, name)
    for parameter, distribution in search.items():
        for other, values in distribution.when.items():
            if not is_satisfiable(other, values, search, fixed):
                problem = f"{name}: {parameter}.when names values that {other} cannot take"
                raise SpaceError(problem, seen=list(values), fix=f"correct {parameter}.when")
    ordered: dict[str, Distribution] = {}
    while len(ordered) < len(search):
        waiting = {p: d for p, d in search.items() if p not in ordered}
        ready = {p: d for p, d in waiting.items() if not d.when.keys() & waiting.keys()}
        if not ready:
            circle = ", ".join(waiting)
            raise SpaceError(f"{name}: whens form a circle", seen=circle, fix="remove one of them")
        ordered |= ready
    return ordered


def check_names_of_whens(search: Mapping[str, Distribution], fixed: Mapping[str, Value], name: str) -> None:
    """SpaceError where a `when` names an unknown parameter. name: of the space, for errors."""
    for parameter, distribution in search.items():
        for other in distribution.when:
            if other not in search and other not in fixed:
                seen, fix = f"{parameter}.when.{other}", nearest(other, [*search, *fixed])
                raise SpaceError(f"{name}: {{seen}} names no parameter of this space", seen=seen, fix=fix)


def is_satisfiable(
    name: str, values: tuple[Value, ...], search: Mapping[str, Distribution], fixed: Mapping[str, Value]
) -> bool:
    """Whether a trial can have one of `values` for `name`."""
    if name in search:
        return any(search[name].contains(value) for value in values)
    return name in fixed and fixed[name] in values


def reachable_names(search: dict[str, Distribution], fixed: Mapping[str, Value]) -> dict[str, Distribution]:
    """The parameters that can ever be drawn: without those whose `when` cannot hold, and so on."""
    left = {
        name: d
        for name, d in search.items()
        if all(is_satisfiable(other, values, search, fixed) for other, values in d.when.items())
    }
    return left if len(left) == len(search) else reachable_names(left, fixed)
