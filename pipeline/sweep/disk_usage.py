"""How much disk a sweep may take, told before it begins.

Owns: the estimate, at the largest networks of the space. Refuses: looking at a disk.
"""

from __future__ import annotations

from typing import Any

from pipeline.config import SweepConfig, TrialConfig
from pipeline.search.space.definition import Space
from pipeline.storage.files import readable
from pipeline.sweep.preflight import possible_values
from pipeline.training.checkpoint import sizes
from pipeline.training.networks.blocks import ImageShape
from pipeline.training.networks.custom import is_custom

_ROW_BYTES = 3000
"""Of a tick's record in a trial's folder, the spool, the study and MLflow's store together, about."""
_GRID_IMAGES = 50
_CHECKPOINTS = 3
"""Of a running trial: two that are kept and one that is being written."""


def disk_needed(space: Space, config: SweepConfig, shape: ImageShape) -> str:
    """At most how much, in words: of a finished trial, of a running one, of all where they are bounded."""
    full = space.config({})
    found = [
        sizes(_largest(space, architecture), shape)
        for architecture in possible_values(space, "architecture")
        if not is_custom(architecture)
    ]
    ticks = -(-full.kimg // full.tick_kimg)
    grids = ticks * _GRID_IMAGES * shape.size**2 * shape.channels  # PNG is smaller
    state, best = (max(sizes) for sizes in zip(*found, strict=True)) if found else (0, 0)
    kept = best + grids + ticks * _ROW_BYTES
    own = ", your own networks aside" if len(found) < len(possible_values(space, "architecture")) else ""
    text = f"at most {readable(kept)} a trial, {readable(_CHECKPOINTS * state)} more while it runs{own}"
    if config.time_budget_sec or config.gpu_hours:
        return text  # as many trials as there is time for
    return f"{text}; {readable(config.trials * kept)} in all"


def _largest(space: Space, architecture: str) -> TrialConfig:
    """The high end of all that has one, the widest choice of numbers."""
    ends: dict[str, Any] = {}
    for name, d in space.search.items():
        numbers = [choice for choice in d.choices if isinstance(choice, int | float)]
        if name != "architecture" and (numbers or not d.choices):
            ends[name] = max(numbers) if d.choices else int(d.high) if d.whole else d.high
    return space.config({**ends, "architecture": architecture})
