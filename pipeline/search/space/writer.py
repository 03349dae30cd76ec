"""Writes a space as a commented TOML file: the meaning of each parameter, and the reason of its range."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config import TrialConfig
from pipeline.search.space.definition import Space
from pipeline.search.space.ranges import NOT_SEARCHED
from pipeline.search.space.rules import ImageFacts
from pipeline.search.space.toml import dump_value, inline
from pipeline.tables import Table

if TYPE_CHECKING:
    from tomlkit.items import InlineTable

_WIDTH = 110
_NEED_LABELS = ("conditional", "condition_g")


@dataclass(frozen=True)
class Reasons:
    """The comments of a built-in space: why its parameters have their values, and what its points are."""

    parameters: Mapping[str, str]
    points: tuple[str, ...]


def read_reasons(text: str, space: Space, facts: ImageFacts) -> Reasons:
    """The comments in the text of a built-in space that hold for these images.

    space: the same as parsed, its rules included. Of a parameter the last rule that sets it counts.
    """
    import tomlkit

    document = tomlkit.parse(text)
    holding = [t for rule, t in zip(space.rules, document.get("rule", []), strict=True) if rule.holds(facts)]
    parameters: dict[str, str] = {}
    for tables in (document, *holding):
        for part in ("fixed", "search"):
            before = ""
            for key, item in tables[part].value.body if part in tables else ():
                if key is not None:  # else a comment or an empty line
                    before = parameters[key.key] = _reason(item, before)
    points = [point for tables in (document, *holding) for point in tables.get("enqueue", [])]
    return Reasons(parameters, tuple(_reason(point, "") for point in points))


def _reason(item: Any, before: str) -> str:
    """The comment behind an item; `likewise` alone means the one before it."""
    comment = str(item.trivia.comment).lstrip("# ")
    if comment == "likewise":
        return before
    return "" if comment.startswith("likewise ") else comment.removeprefix("likewise: ")


def commented_space(space: Space, reasons: Reasons, head: Sequence[str], *, labelled: bool) -> str:
    """TOML text that `parse_space` reads back to an equal space. head: the first lines, without `#`.

    space: without rules. labelled: the images have labels.
    """
    lines = [f"# {line}".rstrip() for line in head]
    lines += ["", "[fixed]  # every trial has these values"]
    for name, value in space.fixed.items():
        lines += _entry(name, dump_value(value), reasons.parameters.get(name, ""))
    lines += ["", "[search]  # drawn anew for every trial"]
    for name, distribution in space.search.items():
        lines += _entry(name, distribution.table().as_string(), reasons.parameters.get(name, ""))
    lines += [
        "",
        "# Not searched: each has its default. Remove the # to search one; the ranges are examples.",
    ]
    lines += _others(space, labelled)
    for i, point in enumerate(space.enqueue):
        reason = reasons.points[i] if i < len(reasons.points) else ""
        lines += ["", _with_comment("[[enqueue]]", reason or "tried before others are drawn")]
        lines += [f"{name} = {dump_value(value)}" for name, value in point.items()]
    return "\n".join(lines) + "\n"


def _entry(name: str, value: str, reason: str) -> Iterator[str]:
    """The meaning above the line, the reason behind it."""
    yield from textwrap.wrap(describe_parameter(name), _WIDTH, initial_indent="# ", subsequent_indent="#   ")
    yield _with_comment(f"{name} = {value}", reason)


def _with_comment(line: str, comment: str) -> str:
    return f"{line}  # {comment}" if comment else line


def describe_parameter(name: str) -> str:
    """`gradient penalty on D: none, r1, ...`, or `D trains alone first (kimg, 0 to 10,000)`."""
    field = TrialConfig.fields()[name]
    meaning, unit = field.metadata["meaning"], field.metadata.get("unit", "")
    if "choices" in field.metadata:
        return f"{meaning}: {', '.join(_choices(field, own=True))}"
    if field.type == "bool":
        return f"{meaning}: false, true"
    low, high = (f"{field.metadata[bound]:g}" for bound in ("low", "high"))
    return f"{meaning} ({f'{unit}, ' if unit else ''}{low} to {high})"


def _choices(field: Field[Any], *, own: bool = False) -> tuple[str, ...]:
    """own: with the form of the user's own code."""
    choices = field.metadata["choices"]
    return choices.forms if own and isinstance(choices, Table) else tuple(choices)


def _others(space: Space, labelled: bool) -> Iterator[str]:
    """A commented line for each parameter that could be searched too."""
    known = {*space.fixed, *space.search, *NOT_SEARCHED, *([] if labelled else _NEED_LABELS)}
    for name, field in TrialConfig.fields().items():
        if name not in known:
            default = dump_value(field.default)
            meaning = f"{field.metadata['meaning']}; default {default}"
            yield _with_comment(f"# {name} = {example_range(field).as_string()}", meaning)


def example_range(field: Field[Any]) -> InlineTable:
    """A distribution of a parameter: all its choices, or a range around its default."""
    if "choices" in field.metadata:
        return inline({"choice": list(_choices(field))})
    if field.type == "bool":
        return inline({"choice": [False, True]})
    low, high = field.metadata["low"], field.metadata["high"]
    default = float(getattr(TrialConfig(), field.name))
    kind = int if field.type == "int" else float
    bounds = [kind(max(low, default / 4)), kind(min(high, default * 4 or 10))]
    log = {"log": True} if bounds[0] > 0 and bounds[1] / bounds[0] >= 8 else {}
    return inline({kind.__name__: bounds, **log})
