"""Generators in the MLflow model registry: packed, verified, registered, promoted and loaded again.

Owns: the packed folder, the tags and the card of a version, who becomes champion, `models:/...` addresses.
Refuses: training code; unpickling anything; a version that does not load and draw the same images elsewhere.
How a packed generator is sampled: `pipeline.registered_model`, shipped inside the model.
"""

from __future__ import annotations

import pipeline.tracker  # noqa: F401  (sets MLflow's environment, before MLflow itself is imported)
from pipeline.registry.loading import LoadedGenerator, from_packed, load
from pipeline.registry.packing import pack
from pipeline.registry.registering import CANDIDATE, CHAMPION, Registered, decide, register, set_alias

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "LoadedGenerator",
    "Registered",
    "decide",
    "from_packed",
    "load",
    "pack",
    "register",
    "set_alias",
]
