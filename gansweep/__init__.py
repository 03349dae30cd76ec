"""gansweep from Python: search, resume, load a generator, measure it.

    import gansweep

    result = gansweep.run(data="folder:photos", space="dcgan", time_budget="2h")
    images, labels = gansweep.load_generator(result.champion).sample(16, seed=0)

Importing it loads neither torch nor Ray nor MLflow: each is loaded by the first call that needs it. A module
called `pipeline` of your own may lie beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gansweep.own_pipeline import use_own_pipeline

if TYPE_CHECKING:
    from pipeline import __version__
    from pipeline.api import resume, run
    from pipeline.errors import GansweepError, UserError
    from pipeline.serving.evaluate import evaluate
    from pipeline.serving.models import load_generator
    from pipeline.sweep.result import Result

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

_HOMES = {
    "GansweepError": "pipeline.errors",
    "Result": "pipeline.sweep.result",
    "UserError": "pipeline.errors",
    "__version__": "pipeline",
    "evaluate": "pipeline.serving.evaluate",
    "load_generator": "pipeline.serving.models",
    "resume": "pipeline.api",
    "run": "pipeline.api",
}

use_own_pipeline()


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gansweep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
