"""Search spaces by file or by name."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import SpaceError, nearest
from pipeline.search.builtin_files import builtin_dir
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


def find_space(name: str) -> Path:
    """The file of a space: a path as given, else the built-in file of that name."""
    if os.path.isfile(name):  # unlike Path.is_file, False for a name that is too long
        return Path(name)
    builtin = builtin_spaces()
    if name.removesuffix(".toml") in builtin:
        return builtin[name.removesuffix(".toml")]
    if Path(name).name.removesuffix(".toml") in builtin and Path(name).parent.name == "search_spaces":
        return builtin[Path(name).name.removesuffix(".toml")]
    raise SpaceError(
        "there is no space {seen}",
        rule="a space is a TOML file or a built-in name",
        seen=name,
        fix=nearest(Path(name).stem, builtin),
    )


def builtin_spaces() -> dict[str, Path]:
    """Name -> file of every space that comes with gansweep."""
    return {path.stem: path for path in sorted(builtin_dir().glob("*.toml"))}
