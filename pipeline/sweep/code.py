"""The user's own code of a sweep: which `module:name`s it has, and their copies in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import SweepConfig, SweepPaths
from pipeline.search.space.definition import Space
from pipeline.search.space.notes import space_code_names
from pipeline.storage.files import write_bytes
from pipeline.tables import DATA_SOURCES, EXTRACTORS, Table
from pipeline.user_code import UserCode, read_code


def read_sweep_code(space: Space, config: SweepConfig, folders: Sequence[Path]) -> UserCode:
    """The modules that a sweep runs, found in the first of `folders` that has them.

    Raises:
        ConfigError: one of them is in none of the folders and is not installed.
    """
    return read_code(code_names(space, config), folders)


def code_names(space: Space, config: SweepConfig) -> Iterator[str]:
    """Every `module:name` that a sweep can run."""
    yield from space_code_names(space)
    for name, table in (*_tables(), ("data", DATA_SOURCES), ("extractor", EXTRACTORS)):
        yield from filter(table.is_user_code, [getattr(config, name)])
    yield from config.metric_names


def write_code(code: UserCode, paths: SweepPaths) -> None:
    """Copy the modules into the sweep's folder, from where a resume and a rerun take them."""
    for module, content in code.files.items():
        paths.code.mkdir(exist_ok=True)
        write_bytes(paths.code / f"{module}.py", content)


def _tables() -> list[tuple[str, Table[Any]]]:
    """The fields of a sweep that choose from a table."""
    choices = {name: field.metadata.get("choices") for name, field in SweepConfig.fields().items()}
    return [(name, table) for name, table in choices.items() if isinstance(table, Table)]
