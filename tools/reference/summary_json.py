"""summary-json.md and measurement.md: the keys of summary.json, and an excerpt of a real one."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.metrics.measurement import Measurement
from pipeline.storage.summary_file import SweepSummary, parse_summary
from pipeline.storage.typed_json import to_json
from pipeline.tables import load_target
from tools.reference.markdown import block, code, page, table, text

EXAMPLE = Path(__file__).parents[2] / "docs" / "reference" / "summary-example.json"
"""What a sweep has written, on 2026-11-27; `_COMMAND` is its command."""

_COMMAND = """
gansweep run --space smoke --data digits --trials 2 --kimg 1 --fid-samples 200 --concurrency 1 --name example
"""

_PLAIN = {int: "integer", float: "number", str: "text", bool: "flag", types.NoneType: "null", object: "any"}

_INTRO = """
`summary.json` in a sweep's folder is rewritten while the sweep runs, at most every two seconds and always
whole. A key marked *optional* may be missing in a file of an earlier version, or where it does not apply. A
number that is unknown or not finite is `null`. A later version may add keys.
"""


def pages() -> dict[str, str]:
    """The pages by their path below docs/reference/."""
    return {"summary-json.md": _summary_page(), "measurement.md": _measurement_page()}


def _summary_page() -> str:
    parts = [_INTRO, _keys_table([SweepSummary])]
    for path, kinds in _objects():
        parts += [f"## {path}", text(kinds[0].__doc__ or ""), _keys_table(kinds)]
    return page("summary.json", *parts, "## Example", _example())


def _measurement_page() -> str:
    intro = """
What is measured of a finalist's best run, and by [`gansweep evaluate`](cli/evaluate.md): the keys of
`finalists[].measurement` in [summary.json](summary-json.md) and of `gansweep evaluate --json`.
"""
    rows = [(code(field.name), text(_measured(field))) for field in dataclasses.fields(Measurement)]
    return page("Measurement of a generator", intro, table(("key", "meaning"), rows))


def _measured(field: dataclasses.Field[Any]) -> str:
    metric = field.metadata.get("metric")
    return metric.describe() if metric else field.metadata["meaning"]


def _example() -> str:
    """The example's first rows; the whole file is beside the page."""
    summary = parse_summary(EXAMPLE.read_text(encoding="utf-8"))
    content: dict[str, Any] = to_json(summary)
    short = {**content, "leaderboard": content["leaderboard"][:1], "finalists": []}
    intro = f"On 2026-11-27, on two CPU cores, this has written [a file]({EXAMPLE.name}) that begins with"
    intro += " (here with one row of the leaderboard, and without finalists):"
    return "\n\n".join([block(_COMMAND.strip(), "sh"), intro, block(json.dumps(short, indent=1), "json")])


def _objects() -> Iterator[tuple[str, list[type]]]:
    """The objects below the whole, by their path, each with the dataclasses that it may be; each once."""
    waiting, seen = [("", SweepSummary)], set()
    while waiting:
        parent, kind = waiting.pop(0)
        for name, hint in typing.get_type_hints(kind).items():
            kinds = _dataclasses(hint)
            if kinds and kinds[0] not in seen:
                seen.add(kinds[0])
                path = f"{parent}{name}{'[]' if typing.get_origin(hint) is tuple else ''}"
                yield path, kinds
                waiting.append((f"{path}.", kinds[0]))


def _dataclasses(hint: Any) -> list[type]:
    """The dataclasses in a type: of a list those of its items, of a union all."""
    if dataclasses.is_dataclass(hint):
        return [typing.cast(type, hint)]
    if typing.get_origin(hint) is Mapping:
        return []
    return [kind for each in typing.get_args(hint) for kind in _dataclasses(each)]


def _keys_table(kinds: list[type]) -> str:
    """The keys of the first of `kinds`; those that another one lacks are optional."""
    hints = typing.get_type_hints(kinds[0])
    rows = []
    for field in dataclasses.fields(kinds[0]):
        if "whole" in field.metadata:
            keys = load_target(field.metadata["whole"])
            rows.append(("...", "", "", f"all keys of a [measurement]({keys.__name__.lower()}.md)"))
            continue
        everywhere = all(field.name in {f.name for f in dataclasses.fields(kind)} for kind in kinds)
        required = field.default is dataclasses.MISSING and everywhere
        meaning = text(field.metadata["meaning"]) + ("" if required else " (*optional*)")
        rows.append((code(field.name), _type(hints[field.name]), text(field.metadata["unit"]), meaning))
    return table(("key", "type", "unit", "meaning"), rows)


def _type(hint: Any) -> str:
    """A type in the words of JSON."""
    args = typing.get_args(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if typing.get_origin(hint) is tuple:
        return f"list of {_type(args[0])}s"
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(map(code, args))
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(dict.fromkeys(map(_type, args)))
    return "object"
