"""gansweep from Python: search, resume, load a generator, measure it.

    import gansweep

    result = gansweep.run(data="folder:photos", space="dcgan", time_budget="2h")
    images, labels = gansweep.load_generator(result.champion).sample(16, seed=0)

Importing it loads neither torch nor Ray nor MLflow: each is loaded by the first call that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import __version__
from pipeline.api import resume, run
from pipeline.errors import GansweepError, UserError
from pipeline.sweep.result import Result

if TYPE_CHECKING:
    from pipeline.serving.evaluate import evaluate
    from pipeline.serving.models import load_generator

__all__ = [
    "GansweepError",
    "Result",
    "UserError",
    "__version__",
    "evaluate",
    "load_generator",
    "resume",
    "run",
]

_LAZY = {"evaluate": "pipeline.serving.evaluate", "load_generator": "pipeline.serving.models"}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gansweep' has no attribute {name!r}")
