"""Spaces by file or by name.

Owns: where spaces lie. Refuses: what they say.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from pipeline.errors import SpaceError, nearest
from pipeline.spaces.space import Space
from pipeline.spaces.tables import parse


def load(name: str) -> Space:
    """Read a space from a file, or a shipped one by its name (`mnist5k`, `dcgan`, ...).

    Raises:
        SpaceError: unreadable, or what it says breaks a rule.
    """
    path = find(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError("a space is a readable TOML file", seen=str(path), fix=str(error)) from error
    return parse(text, path.name)


def find(name: str) -> Path:
    """The file of a space: a path as given, else a file shipped under that name."""
    if os.path.isfile(name):  # unlike Path.is_file, False for a name that is too long
        return Path(name)
    shipped = shipped_spaces()
    if name.removesuffix(".toml") in shipped:
        return shipped[name.removesuffix(".toml")]
    if Path(name).name.removesuffix(".toml") in shipped and Path(name).parent.name == "search_spaces":
        return shipped[Path(name).name.removesuffix(".toml")]
    raise SpaceError(
        "a space is a TOML file or a shipped name", seen=name, fix=nearest(Path(name).stem, shipped)
    )


def shipped_spaces() -> dict[str, Path]:
    """Name -> file of every space that comes with gansweep."""
    installed = Path(str(resources.files("pipeline"))) / "search_spaces"
    beside = Path(__file__).resolve().parents[2] / "search_spaces"
    folder = installed if installed.is_dir() else beside
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
