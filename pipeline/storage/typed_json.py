"""Frozen dataclasses as JSON objects: their schema, reading and writing.

A field without a default is a required key, one with a default may be missing; further keys are allowed. A
field may be an int, a float, a string, a bool, None, a `Literal`, `object` (anything), a union of these, a
`tuple[X, ...]`, a `Mapping[str, X]` or a dataclass. A field made by `whole()` holds the JSON object itself,
one made by `key()` has a meaning and a unit, which its schema repeats.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_PLAIN: dict[object, dict[str, object]] = {
    int: {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    float: {"type": "number", "minimum": -1e15, "maximum": 1e15},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    object: {},
}
"""Integers are counts, numbers and seeds, so none is negative."""


def whole(keys_of: str = "") -> Any:
    """A field that holds the whole JSON object, with the keys that are no fields.

    keys_of: `module:Class` of the dataclass whose fields they are.
    """
    return dataclasses.field(metadata={"whole": keys_of}, repr=False)


def key(meaning: str, unit: str = "", default: Any = dataclasses.MISSING) -> Any:
    """A field with a meaning and a unit; without `default` its key is required."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "unit": unit})


def schema_of(kind: Any) -> dict[str, object]:
    """The JSON schema of a type."""
    origin, args = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, UnionType):
        return {"anyOf": [schema_of(arg) for arg in args]}
    if origin is tuple:
        return {"type": "array", "items": schema_of(args[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": schema_of(args[1])}
    described = {field.name: _description(field) for field in dataclasses.fields(kind)}
    properties = {name: {**schema_of(hint), **described[name]} for name, hint in _keys(kind).items()}
    return {"type": "object", "properties": properties, "required": _required(kind)}


def from_json(kind: type[T], content: Any) -> T:
    """The dataclass `kind` of a JSON object that matches `schema_of(kind)`."""
    known = {name: _read(hint, content[name]) for name, hint in _keys(kind).items() if name in content}
    held = {field.name: content for field in dataclasses.fields(kind) if _is_whole(field)}  # type: ignore[arg-type]
    return kind(**known, **held)


def to_json(value: Any) -> Any:
    """Plain values of a dataclass, mapping or sequence, ready for JSON: None for NaN and infinities."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        held = [getattr(value, field.name) for field in fields if _is_whole(field)]
        return dict(held[0]) if held else {f.name: to_json(getattr(value, f.name)) for f in fields}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(kind: Any, value: Any) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple:
        return tuple(_read(args[0], item) for item in value)
    if isinstance(value, Mapping):  # of a union: the first dataclass whose keys are there
        for each in args if origin in (Union, UnionType) else (kind,):
            if dataclasses.is_dataclass(each) and value.keys() >= set(_required(each)):
                return from_json(each, value)  # type: ignore[arg-type]
    return value


def _is_whole(field: dataclasses.Field[Any]) -> bool:
    return "whole" in field.metadata


def _description(field: dataclasses.Field[Any]) -> dict[str, object]:
    """JSON schema has `description`, but no word for a unit."""
    meaning, unit = field.metadata.get("meaning", ""), field.metadata.get("unit", "")
    return {"description": f"{meaning} [{unit}]" if unit else meaning} if meaning else {}


def _keys(kind: Any) -> dict[str, object]:
    """The types of the fields that are keys."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if not _is_whole(field)}


def _required(kind: Any) -> list[str]:
    none = dataclasses.MISSING
    fields = [field for field in dataclasses.fields(kind) if not _is_whole(field)]
    return [field.name for field in fields if field.default is none and field.default_factory is none]
