"""Which parameters of a space can take part, and an order in which every `when` looks back only.

Owns: the rules of `when` between parameters. Refuses: reading it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import SpaceError, nearest
from pipeline.search.space.distribution import Distribution


def in_order(search: dict[str, Distribution], fixed: Mapping[str, Any], name: str) -> dict[str, Distribution]:
    """Sort so that a `when` looks back only; refuse absent names, impossible values and circles."""
    for parameter, distribution in search.items():
        for other, values in distribution.when.items():
            if other not in search and other not in fixed:
                raise SpaceError(
                    f"{name}: a when names a parameter of this space",
                    seen=f"{parameter}.when.{other}",
                    fix=nearest(other, [*search, *fixed]),
                )
            if not is_satisfiable(other, values, search, fixed):
                raise SpaceError(
                    f"{name}: a when names a value that {other} can take",
                    seen=list(values),
                    fix=f"correct {parameter}.when",
                )
    ordered: dict[str, Distribution] = {}
    while len(ordered) < len(search):
        ready = [
            p
            for p, d in search.items()
            if p not in ordered and all(o in ordered or o not in search for o in d.when)
        ]
        if not ready:
            circle = ", ".join(p for p in search if p not in ordered)
            raise SpaceError(f"{name}: whens do not form a circle", seen=circle, fix="remove one of them")
        ordered.update({p: search[p] for p in ready})
    return ordered


def is_satisfiable(
    name: str, values: tuple[Any, ...], search: Mapping[str, Distribution], fixed: Mapping[str, Any]
) -> bool:
    """Whether a trial can have one of `values` for `name`."""
    if name in search:
        return any(search[name].contains(value) for value in values)
    return name in fixed and fixed[name] in values


def reachable_names(search: dict[str, Distribution], fixed: Mapping[str, Any]) -> dict[str, Distribution]:
    """Without what can never take part, and then without what hung on that."""
    left = {
        name: d
        for name, d in search.items()
        if all(is_satisfiable(other, values, search, fixed) for other, values in d.when.items())
    }
    return left if len(left) == len(search) else reachable_names(left, fixed)
