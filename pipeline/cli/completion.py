"""Completion of values in a shell: names of tables and files, found without loading torch or Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pipeline.search.recipes import builtin_recipes
from pipeline.search.space.builtin import builtin_spaces
from pipeline.tables import DATA_SOURCES, EXTRACTORS, PRUNERS, SAMPLERS

Completer = Callable[[str], list[str]]
"""The values that begin with what is typed so far."""


def _among(*names: str) -> Completer:
    return lambda incomplete: _beginning(incomplete, names)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def complete_space(incomplete: str) -> list[str]:
    """Built-in spaces, then TOML files and folders."""
    return _beginning(incomplete, builtin_spaces()) + _files(incomplete, ".toml")


def complete_sweep(incomplete: str) -> list[str]:
    """Folders of sweeps: those in `runs`, and those that the typed path leads to."""
    found = [str(path.parent) for path in sorted(Path("runs").glob("*/sweep.toml"))]
    known = _beginning(incomplete, found)
    return known + [path for path in _files(incomplete) if path.rstrip("/") not in known]


def complete_source(incomplete: str) -> list[str]:
    """Names of data sources; those that take a path end in a colon."""
    names = [f"{name}:" if row.path else name for name, row in DATA_SOURCES.items()]
    return _beginning(incomplete, names)


def _files(incomplete: str, suffix: str = "") -> list[str]:
    """Folders, and with `suffix` files of that kind, whose path begins with what is typed."""
    folder, _, start = incomplete.rpartition("/")
    base = Path(folder or ("/" if incomplete.startswith("/") else "."))
    try:
        entries = sorted(base.iterdir())
    except OSError:
        return []
    prefix = f"{folder}/" if "/" in incomplete else ""
    return [
        f"{prefix}{path.name}{'/' if path.is_dir() else ''}"
        for path in entries
        if path.name.startswith(start) and not path.name.startswith(".")
        if path.is_dir() or (suffix and path.suffix == suffix)
    ]


_EXTRACTOR = _among("auto", *EXTRACTORS)

COMPLETERS: Mapping[str, Completer] = {
    "space": complete_space,
    "recipe": lambda incomplete: _beginning(incomplete, builtin_recipes()),
    "data": complete_source,
    "sampler": _among(*SAMPLERS),
    "pruner": _among(*PRUNERS),
    "extractor": _EXTRACTOR,
    "second_extractor": _among("auto", "none", *EXTRACTORS),
    "second_opinion": _among("report", "veto"),
    "promote": _among("never", "candidate", "champion"),
    "classes": _among("none", "folders"),
    "split": _among("given", "merge"),
    "fit": _among("crop", "pad", "stretch"),
    "frames": _among("first", "all"),
    "address": _among("local", "auto"),
}
"""Name of an option -> what completes its value."""
