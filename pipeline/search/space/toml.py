"""TOML text of tables and values.

tomlkit is imported where text is written: spaces and recipes are also read on machines that only train.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tomlkit.items import InlineTable


def dump_toml(tables: Mapping[str, object]) -> str:
    """The text of tables by name, which may hold tables; one that is made by `inline` takes one line."""
    import tomlkit

    return tomlkit.dumps(tables).strip("\n") + "\n"


def inline(values: Mapping[str, object]) -> InlineTable:
    """`{float = [0.1, 1.0], when = {penalty = ["r1"]}}`."""
    import tomlkit

    table = tomlkit.inline_table()
    for name, value in values.items():
        table[name] = inline(value) if isinstance(value, Mapping) else value
    return table


def dump_value(value: object) -> str:
    """One value: a string, number, boolean or a list of these."""
    import tomlkit

    return tomlkit.item(value).as_string()
