"""Search spaces by file or by name."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import SpaceError, nearest
from pipeline.search.recipes import builtin_files
from pipeline.search.space.definition import Space
from pipeline.search.space.parser import parse_space


def load_space(name: str) -> Space:
    """Read a space from a file, or a built-in one by its name (`mnist5k`, `dcgan`, ...).

    Raises:
        SpaceError: it does not exist, cannot be read or is not valid.
    """
    path = find_space(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError("the space {seen} cannot be read", seen=str(path), fix=str(error)) from error
    return parse_space(text, path.name)


def load_builtin(name: str) -> Space:
    """A built-in space, whatever lies in the current folder."""
    path = builtin_spaces()[name]
    return parse_space(path.read_text(encoding="utf-8"), path.name)


def find_space(name: str) -> Path:
    """The file of a space: a path as given, else the built-in file of that name."""
    if os.path.isfile(name):  # unlike Path.is_file, False for a name that is too long
        return Path(name)
    builtin, stem = builtin_spaces(), name.removesuffix(".toml")
    if Path(stem).parent.name == "search_spaces":
        stem = Path(stem).name
    if stem in builtin:
        return builtin[stem]
    rule, fix = "a space is a TOML file or a built-in name", nearest(Path(name).stem, builtin)
    raise SpaceError("there is no space {seen}", rule=rule, seen=name, fix=fix)


def builtin_spaces() -> dict[str, Path]:
    """Name -> file of every space that comes with gansweep."""
    return builtin_files("*.toml")
