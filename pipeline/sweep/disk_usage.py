"""An upper bound on the disk space a sweep needs, estimated at the largest networks of its space."""

from __future__ import annotations

from pipeline.config import SweepConfig, TrialConfig
from pipeline.search.space.definition import Space
from pipeline.storage.readable import readable_bytes
from pipeline.training.checkpoint import checkpoint_sizes
from pipeline.training.networks.blocks import ImageShape
from pipeline.user_code import is_user_code

_ROW_BYTES = 3000
"""Approximate size of one tick's record in all places together: trial folder, event log, study, MLflow."""
_GRID_IMAGES = 50
_CHECKPOINTS = 3
"""Per running trial: two that are kept and one that is being written."""


def disk_needed(space: Space, config: SweepConfig, shape: ImageShape) -> str:
    """An upper bound in words: per finished trial, per running one, and in all where trials are limited."""
    full = space.config({})
    found = [
        checkpoint_sizes(_largest(space, architecture), shape)
        for architecture in space.possible_values("architecture")
        if not is_user_code(architecture)
    ]
    ticks = -(-full.kimg // full.tick_kimg)
    grids = ticks * _GRID_IMAGES * shape.size**2 * shape.channels  # PNG is smaller
    state, best = (max(sizes) for sizes in zip(*found, strict=True)) if found else (0, 0)
    kept = best + grids + ticks * _ROW_BYTES
    all_counted = len(found) == len(space.possible_values("architecture"))
    custom = "" if all_counted else ", custom networks not counted"
    of_trial, running = readable_bytes(kept), readable_bytes(_CHECKPOINTS * state)
    text = f"at most {of_trial} a trial, {running} more while it runs{custom}"
    if config.time_budget_sec or config.gpu_hours:
        return text  # the number of trials is not known
    return f"{text}; {readable_bytes(config.trials * kept)} in all"


def _largest(space: Space, architecture: str) -> TrialConfig:
    """The configuration at the upper bound of every numeric hyper-parameter of the space."""
    upper: dict[str, object] = {}
    for name, d in space.search.items():
        numbers = [choice for choice in d.choices if isinstance(choice, int | float)]
        if name != "architecture" and (numbers or not d.choices):
            upper[name] = max(numbers) if d.choices else int(d.high) if d.whole else d.high
    return space.config({**upper, "architecture": architecture})
