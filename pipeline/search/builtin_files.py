"""Where the search spaces and recipes are that come with gansweep."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def builtin_dir() -> Path:
    """The folder `search_spaces`: inside the installed package, or beside it in a checkout."""
    package = Path(str(resources.files("pipeline")))
    installed = package / "search_spaces"
    return installed if installed.is_dir() else package.parent / "search_spaces"
