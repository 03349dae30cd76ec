"""A distribution of [search], read from its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import SpaceError, nearest
from pipeline.search.space.distribution import Distribution, Value, check_in_range, field_of

KINDS = ("float", "int", "choice")
NOT_SEARCHED = ("kimg", "tick_kimg", "seed")
"""Trials are compared at equal kimg; a seed is no quality."""


def read_distribution(name: str, value: Any, where: str) -> Distribution:
    """The distribution of parameter `name`. where: the place in a file, for errors.

    Raises:
        SpaceError: there is no such parameter, it cannot be searched, or the table is no distribution of it.
    """
    kind = str(field_of(name, where).type)
    if name in NOT_SEARCHED:
        rule, fix = "it must be the same for all trials", "put it in [fixed]"
        raise SpaceError(f"{where}: {{seen}} cannot be searched", rule=rule, seen=name, fix=fix)
    form = f"{name} = {{ float|int = [low, high] }} or {{ choice = [...] }}"
    if not isinstance(value, dict) or len(value.keys() & set(KINDS)) != 1:
        raise SpaceError(f"{where}: {name} = {{seen}} is no distribution", seen=value, fix=f"write {form}")
    for key in value:
        if key not in (*KINDS, "log", "when"):
            fix = "put it in a [[rule]]" if key == "scale" else nearest(key, (*KINDS, "log", "when"))
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
