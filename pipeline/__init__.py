"""gansweep: a Ray-distributed hyper-parameter search for GANs.

A space proposes, Optuna decides, Ray trains, MLflow remembers, the registry keeps the best.
The floors and the three doors of this package are drawn in README.md and held by tests/test_rooms.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.serving.models import load_generator

__version__ = "0.1.0"
__all__ = ["__version__", "load_generator"]


def __getattr__(name: str) -> Any:
    # torch and MLflow come in with the first use, not with `import pipeline`.
    if name == "load_generator":
        from pipeline.serving.models import load_generator

        return load_generator
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
