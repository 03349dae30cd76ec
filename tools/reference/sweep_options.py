"""sweep-options.md: every field of SweepConfig, and what its tables hold."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.config import SweepConfig
from pipeline.sweep.options import RunOptions, option_infos
from pipeline.tables import DATA_SOURCES, EXTRACTORS, PRUNERS, SAMPLERS
from tools.reference.markdown import code, page, table, text
from tools.reference.parameters import default_of, field_range, kind_of, rows_table

_INTRO = """
The table `[sweep]` of a sweep's `sweep.toml`, and the option of [`gansweep run`](cli/run.md) that gives each
value.
"""


_TABLES = {
    "Samplers": SAMPLERS,
    "Pruners": PRUNERS,
    "Extractors": EXTRACTORS,
    "Data sources": DATA_SOURCES,
}


def pages() -> dict[str, str]:
    """The page by its path below docs/reference/."""
    parts = [_INTRO]
    for heading, fields in SweepConfig.groups().items():
        parts += [f"## {heading}", table(_COLUMNS, map(_row, fields))]
    for heading, rows in _TABLES.items():
        parts += [f"## {heading}", rows_table(rows)]
    return {"sweep-options.md": page("Options of a sweep", *parts)}


_COLUMNS = ("name", "option", "type", "default", "range or choices", "meaning")


def option_of(field: dataclasses.Field[Any]) -> str:
    """The name of the option that gives a field its value; empty = none does."""
    name: str = field.metadata.get("option") or field.name.removesuffix("_sec")
    return name if name in option_infos(RunOptions) else ""


def _row(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    option = option_of(field)
    flag = code("--" + option.replace("_", "-")) if option else ""
    start = code(field.name), flag, kind_of(field), default_of(field), field_range(field)
    return *start, text(field.metadata["meaning"])
