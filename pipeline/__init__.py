"""gansweep: a Ray-distributed hyper-parameter search for GANs.

Optuna draws trials from a search space, Ray trains them, MLflow records them, its registry keeps the best.
The packages and their import order are checked by tests/test_architecture.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.serving.models import load_generator

__version__ = "0.1.0"
__all__ = ["__version__", "load_generator"]


def __getattr__(name: str) -> Any:
    # torch and MLflow are imported at the first use, not with `import pipeline`.
    if name == "load_generator":
        from pipeline.serving.models import load_generator

        return load_generator
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
