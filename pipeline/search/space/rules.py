"""Rules of a space: values and ranges that follow from the images and from the device that trains.

    [[rule]]                                   # all that hold are applied in order: later ones win
    when = { device = "cpu", size_below = 128 }     # all of it must hold; without `when` it always does
    [rule.fixed]                               # what is fixed here is no longer searched
    kimg = { factor = 160000, size = -2 }      # a scaled number: factor * size^a * batch_size^b
    [rule.search]                              # what is searched here is no longer fixed
    gamma = { float = [0.1, 10.0], log = true, scale = { factor = 2e-4, size = 2, batch_size = -1 } }
    [[rule.enqueue]]                           # comes after the points before it; keys that are not
    recipe = "r1"                              # searched are left out

The bounds of a range with `scale` are multiples of that scaled number. Scaled numbers are rounded where the
parameter is an integer, and kept within its bounds, those of a point also within its range. Their batch size
is that of the point, else the fixed one, else the middle of what is searched.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pipeline.config import TrialConfig
from pipeline.errors import ConfigError, SpaceError, nearest
from pipeline.search.recipes import check_scale, scaled_number
from pipeline.search.space.distribution import Distribution, Value, check_in_range, field_of
from pipeline.search.space.points import named_recipe
from pipeline.search.space.ranges import read_distribution

Scalable: TypeAlias = Value | Mapping[str, float]
"""A value, or the table of a scaled number."""


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What a space may depend on.

    size: of an image in pixels. images: number that is trained on. classes: 0 = no labels.
    smallest_class: images of the class that has the fewest, of those that are trained on; 0 = no labels.
    device: what trains, cpu or gpu.
    """

    size: int
    channels: int
    images: int
    classes: int
    smallest_class: int
    device: str

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return self.classes > 0


_CONDITIONS: Mapping[str, tuple[type, Callable[[ImageFacts, Any], bool]]] = {
    "device": (str, lambda facts, value: facts.device == value),
    "channels": (int, lambda facts, value: facts.channels == value),
    "labelled": (bool, lambda facts, value: facts.labelled == value),
    "size_from": (int, lambda facts, value: facts.size >= value),
    "size_below": (int, lambda facts, value: facts.size < value),
    "images_from": (int, lambda facts, value: facts.images >= value),
    "images_below": (int, lambda facts, value: facts.images < value),
    "smallest_class_from": (int, lambda facts, value: facts.smallest_class >= value),
}
"""Key of `when` -> the type of its value, and whether it holds."""

_DEVICES = ("cpu", "gpu")
_TABLES = ("when", "fixed", "search", "enqueue")


@dataclass(frozen=True)
class Rule:
    """One checked table [[rule]]. search: the tables of distributions, as written."""

    when: Mapping[str, Value] = field(default_factory=dict)
    fixed: Mapping[str, Scalable] = field(default_factory=dict)
    search: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    enqueue: tuple[Mapping[str, Scalable], ...] = ()

    def holds(self, facts: ImageFacts) -> bool:
        """Whether every condition holds."""
        return all(_CONDITIONS[name][1](facts, value) for name, value in self.when.items())

    def possible_values(self, name: str) -> Sequence[Any]:
        """The choices, or the one value, that the rule gives to a parameter with choices."""
        return [self.fixed[name]] if name in self.fixed else self.search.get(name, {}).get("choice", [])

    def table(self) -> dict[str, object]:
        """The table that `read_rules` reads back to an equal rule."""
        tables = {name: value for name, value in vars(self).items() if value and name != "enqueue"}
        points = {"enqueue": [dict(point) for point in self.enqueue]} if self.enqueue else {}
        return {**tables, **points}


# --- Reading -------------------------------------------------------------------------------------


def read_rules(tables: object, where: str) -> tuple[Rule, ...]:
    """Check the tables [[rule]] of a space. where: the place in a file, for errors.

    Raises:
        SpaceError: an unknown key or a wrong value.
    """
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SpaceError(f"{where} is no list of tables", seen=tables, fix="write [[rule]]")
    return tuple(_read_rule(table, f"{where} {number}") for number, table in enumerate(tables, 1))


def _read_rule(table: Mapping[str, Any], where: str) -> Rule:
    for key in table:
        if key not in _TABLES:
            rule, fix = f"a rule has {', '.join(_TABLES)}", nearest(key, _TABLES)
            raise SpaceError(f"{where}: {{seen}} is unknown", rule=rule, seen=key, fix=fix)
    when, fixed, search = (table.get(name, {}) for name in ("when", "fixed", "search"))
    points = table.get("enqueue", [])
    for name, part in (("when", when), ("fixed", fixed), ("search", search)):
        if not isinstance(part, dict):
            raise SpaceError(f"{where}: {name} is no table", seen=part, fix="write key = value below it")
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise SpaceError(f"{where}: enqueue is no list of tables", seen=points, fix="write [[rule.enqueue]]")
    for both in sorted(fixed.keys() & search.keys()):
        problem = f"{where}: {{seen}} is both fixed and searched"
        raise SpaceError(problem, seen=both, fix="keep one of the two")
    for name, value in search.items():
        _check_range(name, value, f"{where} search")
    return Rule(
        when={name: _condition(name, value, f"{where} when") for name, value in when.items()},
        fixed={name: _scalable(name, value, f"{where} fixed") for name, value in fixed.items()},
        search=search,
        enqueue=tuple(_point(point, f"{where} enqueue") for point in points),
    )


def _condition(name: str, value: object, where: str) -> Value:
    if name not in _CONDITIONS:
        fix = nearest(name, _CONDITIONS)
        raise SpaceError(f"{where}: {{seen}} is no condition", seen=name, fix=fix)
    kind = _CONDITIONS[name][0]
    valid = value in _DEVICES if name == "device" else type(value) is kind
    if not valid or (kind is int and value < 0):  # type: ignore[operator]
        forms = {str: "cpu or gpu", bool: "true or false", int: "a whole number from 0"}
        rule, fix = f"{name} is {forms[kind]}", f"correct {name}"
        raise SpaceError(f"{where}: {name} = {{seen}} is no condition", rule=rule, seen=value, fix=fix)
    return value  # type: ignore[return-value]


def _scalable(name: str, value: Any, where: str) -> Scalable:
    if not isinstance(value, dict):
        checked: Value = check_in_range(name, value, where)
        return checked
    _check_scaled(name, value, where)
    return value


def _check_scaled(name: str, scale: object, where: str) -> None:
    if field_of(name, where).type not in ("int", "float"):
        raise SpaceError(f"{where}: {name} is no number", seen=scale, fix=f"write one value for {name}")
    try:
        check_scale(scale, f"{where}: {name}")
    except ConfigError as error:
        raise SpaceError(error.problem, rule=error.rule, seen=error.seen, fix=error.fix) from error
    if name == "batch_size" and "batch_size" in scale:  # type: ignore[operator]
        raise SpaceError(f"{where}: batch_size follows itself", seen=scale, fix="leave out its batch_size")


def _point(point: Mapping[str, Any], where: str) -> dict[str, Scalable]:
    if "recipe" in point:
        named_recipe(point["recipe"], where)
    return {name: v if name == "recipe" else _scalable(name, v, where) for name, v in point.items()}


def _check_range(name: str, table: Any, where: str) -> None:
    """SpaceError where the table is no distribution; the bounds of one with `scale` are positive factors."""
    if not isinstance(table, dict) or "scale" not in table:
        read_distribution(name, table, where)
        return
    _check_scaled(name, table["scale"], where)
    plain = {key: value for key, value in table.items() if key != "scale"}
    bounds = next((plain[kind] for kind in ("float", "int") if kind in plain), None)
    numbers = isinstance(bounds, list) and all(type(bound) in (int, float) for bound in bounds)
    if not numbers or len(bounds) != 2 or not 0 < bounds[0] < bounds[1] < math.inf:  # type: ignore[arg-type, index]
        rule = "a range with scale has two bounds above 0, the low one first"
        raise SpaceError(f"{where}: {name} = {{seen}} is no range", rule=rule, seen=table, fix="correct it")
    top = field_of(name, where).metadata["high"]  # any valid range: the bounds are not known yet
    read_distribution(name, {**plain, **{k: [top / 2, top] for k in ("float", "int") if k in plain}}, where)


# --- Applying ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Applied:
    """What the rules make of a space, its `when`s and its points not checked yet."""

    fixed: dict[str, Value]
    search: dict[str, Distribution]
    enqueue: tuple[dict[str, Value], ...]


def apply_rules(
    rules: Sequence[Rule],
    facts: ImageFacts,
    fixed: Mapping[str, Value],
    search: Mapping[str, Distribution],
    known: Mapping[str, Value],
    where: str,
) -> Applied:
    """`fixed` and `search` with what the rules that hold set, and the points of these rules.

    known: values that go before all others; of these the batch size counts.

    Raises:
        SpaceError: a range is empty or a value is not valid for these images. where: for its text.
    """
    values: dict[str, Scalable] = dict(fixed)
    drawn: dict[str, Distribution | Mapping[str, Any]] = dict(search)
    holding = [rule for rule in rules if rule.holds(facts)]
    for rule in holding:
        drawn = {name: d for name, d in drawn.items() if name not in rule.fixed} | dict(rule.search)
        values = {name: v for name, v in values.items() if name not in rule.search} | dict(rule.fixed)
    batch = _batch_size(values, drawn, facts, known, where)
    ranges = {name: _distribution(name, d, facts, batch, where) for name, d in drawn.items()}
    points = []
    for point in (point for rule in holding for point in rule.enqueue):
        own = _number("batch_size", {"batch_size": batch, **point, **known}["batch_size"], facts, batch)
        scaled = {name for name, value in point.items() if isinstance(value, Mapping)}
        numbers = _numbers(point, facts, float(own))
        points.append({n: _within(v, ranges.get(n)) if n in scaled else v for n, v in numbers.items()})
    return Applied(_numbers(values, facts, batch), ranges, tuple(points))


def _batch_size(
    values: Mapping[str, Scalable],
    drawn: Mapping[str, Distribution | Mapping[str, Any]],
    facts: ImageFacts,
    known: Mapping[str, Value],
    where: str,
) -> float:
    """The batch size that scaled numbers reckon with."""
    if "batch_size" in known or "batch_size" not in drawn:
        values = {"batch_size": TrialConfig().batch_size, **values, **known}
        return float(_number("batch_size", values["batch_size"], facts, 1.0))
    d = _distribution("batch_size", drawn["batch_size"], facts, 1.0, where)
    if d.choices:
        return float(statistics.median_low(d.choices))
    return math.sqrt(d.low * d.high) if d.log else (d.low + d.high) / 2


def _numbers(values: Mapping[str, Scalable], facts: ImageFacts, batch: float) -> dict[str, Value]:
    return {name: _number(name, value, facts, batch) for name, value in values.items()}


def _number(name: str, value: Scalable, facts: ImageFacts, batch: float) -> Any:
    """The value, a scaled number in the type and within the bounds of its field."""
    return _fit(name, scaled_number(value, facts.size, batch)) if isinstance(value, Mapping) else value


def _fit(name: str, number: float) -> float:
    """The number within the bounds of the parameter, rounded where that is an integer."""
    parameter = TrialConfig.fields()[name]
    kept: float = min(max(number, parameter.metadata["low"]), parameter.metadata["high"])
    return round(kept) if parameter.type == "int" else kept


def _within(number: Any, searched: Distribution | None) -> Any:
    """The number within the range that is searched, if there is one."""
    if searched is None or searched.choices:
        return number
    return min(max(number, searched.low), searched.high)


def _distribution(
    name: str, table: Distribution | Mapping[str, Any], facts: ImageFacts, batch: float, where: str
) -> Distribution:
    if isinstance(table, Distribution):
        return table
    plain = {key: value for key, value in table.items() if key != "scale"}
    if "scale" in table:
        number = scaled_number(table["scale"], facts.size, batch)
        for kind in plain.keys() & {"float", "int"}:
            plain[kind] = [_fit(name, bound * number) for bound in plain[kind]]
    return read_distribution(name, plain, where)
