"""Dataclasses as JSON objects: what their schema accepts, and that reading undoes writing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator

from pipeline.storage.typed_json import from_json, schema_of, to_json, whole


@dataclass(frozen=True)
class Point:
    x: float
    label: str | None = None


@dataclass(frozen=True)
class Named(Point):
    name: str = "no"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    state: Literal["open", "closed"]
    points: tuple[Point, ...] = ()
    sizes: Mapping[str, int]
    origin: Point | None = None
    values: Mapping[str, object] = whole()


GOOD: dict[str, Any] = {"state": "open", "points": [{"x": 1.5}], "sizes": {"a": 2}, "of a later version": [1]}


def test_a_drawing_is_read_and_written_with_all_its_keys() -> None:
    drawing = from_json(Drawing, GOOD)
    assert (drawing.state, drawing.points, drawing.origin) == ("open", (Point(1.5),), None)
    assert to_json(drawing) == GOOD
    assert to_json(drawing.points[0]) == {"x": 1.5, "label": None}
    assert to_json(Point(float("nan"))) == {"x": None, "label": None}


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({}, True),
        ({"origin": {"x": 0, "label": "o"}}, True),
        ({"origin": {"label": "o"}}, False),
        ({"state": "ajar"}, False),
        ({"points": {"x": 1}}, False),
        ({"points": [{"x": True}]}, False),
        ({"sizes": {"a": 2.5}}, False),
        ({"sizes": {"a": -1}}, False),
        ({"points": [{"x": 1e300}]}, False),
    ],
)
def test_the_schema_comes_from_the_types(changes: dict[str, Any], valid: bool) -> None:
    assert Draft202012Validator(schema_of(Drawing)).is_valid({**GOOD, **changes}) is valid


def test_a_field_without_a_default_is_required() -> None:
    assert schema_of(Drawing)["required"] == ["state", "sizes"]
    assert schema_of(Named)["required"] == ["x"]
