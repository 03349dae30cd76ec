"""parameters.md: every field of TrialConfig, and what its tables hold."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.config import EFFECTIVE_WHEN, TrialConfig
from pipeline.tables import LOSSES, NETWORKS, PENALTIES, Table
from tools.reference.markdown import code, page, table, text

_CONDITIONS = {name: condition for condition, names in EFFECTIVE_WHEN.items() for name in names}

_INTRO = """
A trial's hyper-parameters: the names that a space may use in `[fixed]`, `[search]` and `[[enqueue]]`, and
`gansweep run --set NAME=VALUE`. A value of another type or out of its range is refused.
"""


def pages() -> dict[str, str]:
    """The page by its path below docs/reference/."""
    parts = [_INTRO]
    for heading, fields in TrialConfig.groups().items():
        title, _, explanation = heading.partition(": ")
        parts += [f"## {title}", text(_sentence(explanation)), _fields_table(fields)]
    parts += ["## Architectures", _architectures(), "## The losses", _losses()]
    parts += ["## The penalties", rows_table(PENALTIES)]
    return {"parameters.md": page("Hyper-parameters of a trial", *parts)}


def field_range(field: dataclasses.Field[Any]) -> str:
    """The range with its unit, or the choices, of a configuration's field."""
    choices, data = field.metadata.get("choices"), field.metadata
    if isinstance(choices, Table):
        return ", ".join(map(code, choices.forms))
    if choices is not None:
        return ", ".join(code(choice or '""') for choice in choices)
    if field.type == "bool":
        return "`true`, `false`"
    span = f"{_number(data['low'])} to {_number(data['high'])}" if "low" in data else ""
    return f"{span} {text(data.get('unit', ''))}".strip()


def default_of(field: dataclasses.Field[Any]) -> str:
    """The default as TOML writes it."""
    if isinstance(field.default, bool):
        return code(str(field.default).lower())
    return code(field.default if field.default != "" else '""')


def kind_of(field: dataclasses.Field[Any]) -> str:
    return {"str": "text", "int": "integer", "float": "number", "bool": "flag"}[str(field.type)]


def _fields_table(fields: list[dataclasses.Field[Any]]) -> str:
    return table(("name", "type", "default", "range or choices", "meaning"), map(_row, fields))


def _row(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    meaning, condition = field.metadata["meaning"], _CONDITIONS.get(field.name, "")
    ending = f" (only where {condition})" if condition else ""
    start = code(field.name), kind_of(field), default_of(field), field_range(field)
    return *start, text(meaning + ending)


def _architectures() -> str:
    columns = (
        "name",
        "meaning",
        "`norm_g`",
        "`norm_d`",
        "class by norm",
        "image sizes",
        "time of a step",
    )
    rows = [
        (
            code(name),
            text(row.meaning),
            ", ".join(row.norm_g),
            ", ".join(row.norm_d),
            "yes" if row.class_norm else "no",
            "halve down to 4 to 7 px" if row.halves else "any",
            f"{row.cost:g}",
        )
        for name, row in NETWORKS.items()
    ]
    own = (code(NETWORKS.forms[-1]), text(f"your own: {NETWORKS.form}"), *[""] * 5)
    return table(columns, [*rows, own])


def _losses() -> str:
    columns = ("name", "meaning", "needs a penalty or spectral norm")
    rows = [(code(n), text(row.meaning), "yes" if row.needs_penalty else "no") for n, row in LOSSES.items()]
    return table(columns, [*rows, (code(LOSSES.forms[-1]), text(f"your own: {LOSSES.form}"), "")])


def rows_table(rows: Table[Any]) -> str:
    """The rows of a table of the code: name and meaning."""
    own = (code(rows.forms[-1]), text(f"your own: {rows.form}"))
    forms = [*zip(rows.forms[:-1], rows.values(), strict=True)]
    return table(("name", "meaning"), [*((code(form), text(row.meaning)) for form, row in forms), own])


def _number(value: float) -> str:
    if isinstance(value, int) and value > 1e9:
        return f"2^{value.bit_length()} - 1"
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def _sentence(plain: str) -> str:
    return f"{plain[0].upper()}{plain[1:]}." if plain else ""
