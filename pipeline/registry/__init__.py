"""Generators in the MLflow model registry: packed, verified, registered, promoted and loaded again.

Owns: the packed folder, the tags and the card of a version, who becomes champion, `models:/...` addresses,
the formats that others read. Refuses: training code; unpickling anything; a version that does not load, draw
the same images and have the same fid elsewhere.
How a packed generator is sampled: `pipeline.registered_model`, shipped inside the model.
"""

from __future__ import annotations

import pipeline.tracker  # noqa: F401  (sets MLflow's environment, before MLflow itself is imported)
from pipeline.registered_model import Images
from pipeline.registry.card import write_card
from pipeline.registry.exporting import FORMATS, export
from pipeline.registry.loading import LoadedGenerator, fetched, from_packed, load
from pipeline.registry.packing import device_name, label_shares, pack, pick_device
from pipeline.registry.registering import (
    CANDIDATE,
    CHAMPION,
    PROMOTE,
    Registered,
    decide,
    register,
    set_alias,
)

__all__ = [
    "CANDIDATE",
    "CHAMPION",
    "FORMATS",
    "Images",
    "PROMOTE",
    "LoadedGenerator",
    "Registered",
    "decide",
    "device_name",
    "export",
    "fetched",
    "from_packed",
    "label_shares",
    "load",
    "pack",
    "pick_device",
    "register",
    "set_alias",
    "write_card",
]
