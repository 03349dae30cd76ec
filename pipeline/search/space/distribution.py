"""One parameter of a space: its distribution, and its values checked against `TrialConfig`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from pipeline.config import TrialConfig, check_value
from pipeline.errors import ConfigError, SpaceError, nearest
from pipeline.search.space.toml import inline

if TYPE_CHECKING:
    from tomlkit.items import InlineTable

Value: TypeAlias = bool | int | float | str
"""The value of a hyper-parameter."""


@dataclass(frozen=True)
class Distribution:
    """What one parameter is drawn from: `choices`, or numbers in [low, high], on a log scale if `log`.

    whole: integers. when: other parameter -> its values for which this one is drawn; it has its default else.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def contains(self, value: Any) -> bool:
        """Whether the value can be drawn."""
        return value in self.choices if self.choices else self.low <= value <= self.high

    @property
    def scale(self) -> tuple[float, float]:
        """The bounds of a range on its own scale: logarithms if `log`."""
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)

    def to_unit(self, value: float) -> float:
        """Where a number lies in the range, 0..1, on its own scale."""
        low, high = self.scale
        return ((math.log(value) if self.log else value) - low) / ((high - low) or 1.0)

    def from_unit(self, place: float) -> int | float:
        """The number at a place of the range; places outside 0..1 are its ends."""
        low, high = self.scale
        number = low + min(max(place, 0.0), 1.0) * (high - low)
        number = min(max(math.exp(number) if self.log else number, self.low), self.high)
        return round(number) if self.whole else float(number)

    def table(self) -> InlineTable:
        """The inline table of [search] that reads back to an equal distribution."""
        kind = int if self.whole else float
        bounds = {kind.__name__: [kind(self.low), kind(self.high)]}
        values = {"choice": list(self.choices)} if self.choices else bounds
        log = {"log": True} if self.log else {}
        return inline({**values, **log, **({"when": self.when} if self.when else {})})

    def widened(self, name: str, point: Mapping[str, Any]) -> Distribution:
        """The same, widened so far that the point's value for `name` can be drawn, `when` included.

        Raises:
            SpaceError: the value is not positive and the scale is logarithmic.
        """
        if name not in point:
            return self
        when = {o: (*v, point[o]) if point.get(o, v[0]) not in v else v for o, v in self.when.items()}
        value = point[name]
        if self.contains(value):
            return dataclasses.replace(self, when=when)
        if self.choices:
            return dataclasses.replace(self, choices=(*self.choices, value), when=when)
        if self.log and value <= 0:
            fix = f"pass --set {name}={value}"
            raise SpaceError(f"{name} = {{seen}} is not on its log scale", seen=value, fix=fix)
        return dataclasses.replace(self, low=min(self.low, value), high=max(self.high, value), when=when)


def field_of(name: str, where: str) -> dataclasses.Field[Any]:
    """The field of `TrialConfig`; SpaceError if there is none. where: the place in a file, for errors."""
    fields = TrialConfig.fields()
    if name not in fields:
        raise SpaceError(f"{where}: {{seen}} is no hyper-parameter", seen=name, fix=nearest(name, fields))
    return fields[name]


def check_in_range(name: str, value: object, where: str) -> Any:
    """The value in the type of the field of `TrialConfig`; SpaceError if it is out of the field's bounds."""
    try:
        return check_value(field_of(name, where), value)
    except ConfigError as error:
        raise in_space(error, where) from error


def in_space(error: ConfigError, where: str) -> SpaceError:
    """The same error with its place in a file."""
    return SpaceError(f"{where}: {error.problem}", rule=error.rule, seen=error.seen, fix=error.fix)


def check_fixed(values: Mapping[str, object], where: str) -> dict[str, Value]:
    """All values by `check_in_range`."""
    return {name: check_in_range(name, value, where) for name, value in values.items()}


def check_drawable(name: str, value: Any, distribution: Distribution, where: str) -> Any:
    """The value; SpaceError if the distribution does not contain it."""
    if not distribution.contains(value):
        problem = f"{where}: {name} = {{seen}} is outside its range in the space"
        raise SpaceError(problem, seen=value, fix="widen the range")
    return value
