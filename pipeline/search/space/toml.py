"""TOML text of tables and values."""

from __future__ import annotations

from collections.abc import Mapping

import tomlkit
from tomlkit.items import InlineTable


def dump_toml(tables: Mapping[str, object]) -> str:
    """The text of tables by name, which may hold tables; one that is made by `inline` takes one line."""
    return tomlkit.dumps(tables).strip("\n") + "\n"


def inline(values: Mapping[str, object]) -> InlineTable:
    """`{float = [0.1, 1.0], when = {penalty = ["r1"]}}`."""
    table = tomlkit.inline_table()
    for name, value in values.items():
        table[name] = inline(value) if isinstance(value, Mapping) else value
    return table


def dump_value(value: object) -> str:
    """One value: a string, number, boolean or a list of these."""
    return tomlkit.item(value).as_string()
