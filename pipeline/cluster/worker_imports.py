"""Ray's workers import our `pipeline`, although they search the driver's folders first."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from typing import Any

import pipeline

_HOOK = "gansweep.own_pipeline.use_own_pipeline"


def worker_options() -> dict[str, Any]:
    """Options for `ray.init`: none where a worker would find our `pipeline` anyway.

    A worker inherits PYTHONPATH, and searches the folder of the driver's script and the current folder.
    """
    script = os.path.dirname(os.path.realpath(sys.argv[0]))
    if all(_finds_ours(places) for places in ([script], [os.getcwd()], sys.path)):
        return {}
    return {"runtime_env": {"worker_process_setup_hook": _HOOK}}


def _finds_ours(places: list[str]) -> bool:
    """False where these folders hold another `pipeline` before ours."""
    found = PathFinder.find_spec(pipeline.__name__, places)
    return not (found and found.origin) or os.path.samefile(found.origin, str(pipeline.__file__))
