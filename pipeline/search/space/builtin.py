"""Spaces by file or by name.

Owns: where spaces lie. Refuses: what they say.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import SpaceError, nearest
from pipeline.search.builtin_files import builtin_dir
from pipeline.search.space.definition import Space
from pipeline.search.space.parser import parse_space


def load_space(name: str) -> Space:
    """Read a space from a file, or a shipped one by its name (`mnist5k`, `dcgan`, ...).

    Raises:
        SpaceError: unreadable, or what it says breaks a rule.
    """
    path = find_space(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError("a space is a readable TOML file", seen=str(path), fix=str(error)) from error
    return parse_space(text, path.name)


def find_space(name: str) -> Path:
    """The file of a space: a path as given, else a file shipped under that name."""
    if os.path.isfile(name):  # unlike Path.is_file, False for a name that is too long
        return Path(name)
    shipped = builtin_spaces()
    if name.removesuffix(".toml") in shipped:
        return shipped[name.removesuffix(".toml")]
    if Path(name).name.removesuffix(".toml") in shipped and Path(name).parent.name == "search_spaces":
        return shipped[Path(name).name.removesuffix(".toml")]
    raise SpaceError(
        "a space is a TOML file or a shipped name", seen=name, fix=nearest(Path(name).stem, shipped)
    )


def builtin_spaces() -> dict[str, Path]:
    """Name -> file of every space that comes with gansweep."""
    return {path.stem: path for path in sorted(builtin_dir().glob("*.toml"))}
