"""`pipeline` is gansweep's in this process, whatever module of that name Python would find first."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_NAME = "pipeline"
_OURS = Path(__file__).resolve().parent.parent / _NAME / "__init__.py"  # both packages are installed together


def use_own_pipeline() -> None:
    """Load our `pipeline` by its path where another one would be found; else do nothing.

    Raises:
        ImportError: another `pipeline` is loaded already.
    """
    loaded = sys.modules.get(_NAME)
    if loaded is not None:
        if not _is_ours(getattr(loaded, "__file__", None)):
            where = getattr(loaded, "__file__", None) or "another place"
            raise ImportError(
                f"gansweep has a package called {_NAME}, and this process has loaded another one, {where}: "
                "rename that, or import gansweep in a process of its own"
            )
        return
    found = importlib.util.find_spec(_NAME)
    if found is None or not _is_ours(found.origin):
        spec = importlib.util.spec_from_file_location(
            _NAME, _OURS, submodule_search_locations=[str(_OURS.parent)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[_NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def _is_ours(file: str | None) -> bool:
    return file is not None and os.path.realpath(file) == str(_OURS)
