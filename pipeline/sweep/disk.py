"""How much disk space a sweep takes, and whether it is there."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.config import SweepConfig, TrialConfig
from pipeline.errors import SweepError
from pipeline.search.space.definition import Space
from pipeline.storage.folders import Folder, existing_folder, free_bytes
from pipeline.storage.readable import readable_bytes
from pipeline.tables import NETWORKS
from pipeline.training.checkpoint import checkpoint_sizes
from pipeline.training.networks.blocks import ImageShape

log = logging.getLogger(__name__)

_ROW_BYTES = 3000
"""Approximate size of one tick's record in all places together: trial folder, event log, study, MLflow."""
_SWEEP_BYTES = 8_000_000
"""Approximate size of what a sweep has once: its report, MLflow's database, the packed champion."""
_GRID_IMAGES = 50
_CHECKPOINTS = 3
"""Per running trial: two that are kept and one that is being written."""


@dataclass(frozen=True)
class DiskNeed:
    """Upper bounds in bytes.

    trial: of a finished trial. running: of a running one beside that. trials: of the sweep, 0 = not known.
    custom: whether there are networks of the user's own, which are not counted.
    """

    trial: int
    running: int
    trials: int
    custom: bool = False

    @property
    def first(self) -> int:
        """Of a sweep with one trial."""
        return self.trial + self.running + _SWEEP_BYTES

    @property
    def whole(self) -> int:
        """Of the whole sweep with one trial at a time, or with one trial where their number is not known."""
        return self.first + max(self.trials - 1, 0) * self.trial

    def __str__(self) -> str:
        custom = ", custom networks not counted" if self.custom else ""
        of_trial, running = readable_bytes(self.trial), readable_bytes(self.running)
        text = f"at most {of_trial} a trial, {running} more while it runs{custom}"
        return f"{text}; {readable_bytes(self.trials * self.trial)} in all" if self.trials else text


def disk_needed(space: Space, config: SweepConfig, shape: ImageShape) -> DiskNeed:
    """What the sweep takes at most."""
    full = space.config({})
    found = [
        checkpoint_sizes(_largest(space, architecture), shape)
        for architecture in space.possible_values("architecture")
        if not NETWORKS.is_user_code(architecture)
    ]
    ticks = -(-full.kimg // full.tick_kimg)
    grids = ticks * _GRID_IMAGES * shape.size**2 * shape.channels  # PNG is smaller
    state, best = (max(sizes) for sizes in zip(*found, strict=True)) if found else (0, 0)
    limited_by_a_budget = config.time_budget_sec or config.gpu_hours
    return DiskNeed(
        trial=best + grids + ticks * _ROW_BYTES,
        running=_CHECKPOINTS * state,
        trials=0 if limited_by_a_budget else config.trials,
        custom=len(found) < len(space.possible_values("architecture")),
    )


def check_disk(need: DiskNeed, out: Folder, others: Iterable[Folder] = (), *, new: bool) -> None:
    """Warn where the disk of `out` has no room for the whole sweep, or that of another folder for one trial.

    new: whether the sweep begins. One that exists goes on on a full disk, and saves when there is space.

    Raises:
        SweepError: there is no room for one trial of a new sweep.
    """
    if new and free_bytes(out.path) < need.first:
        raise SweepError(
            f"the disk of {out.name} has too little space: {{seen}}",
            rule=f"a sweep with one trial may take {readable_bytes(need.first)}",
            seen=_free(out),
            fix=f"free some, or {out.fix}",
        )
    _warn(
        out, need.whole if new else need.first, f"{need.trials} trials" if new and need.trials else "a trial"
    )
    for folder in others:
        _warn(folder, need.trial, "a trial")


def _warn(folder: Folder, needed: int, what: str) -> None:
    if free_bytes(folder.path) < needed:
        log.warning(
            f"the disk of {folder.name} has {_free(folder)}, "
            f"and {what} may take {readable_bytes(needed)}: free some, or {folder.fix}"
        )


def _free(folder: Folder) -> str:
    return f"{readable_bytes(free_bytes(folder.path))} free at {existing_folder(folder.path)}"


def _largest(space: Space, architecture: str) -> TrialConfig:
    """The configuration at the upper bound of every numeric hyper-parameter of the space."""
    upper: dict[str, object] = {}
    for name, d in space.search.items():
        numbers = [choice for choice in d.choices if isinstance(choice, int | float)]
        if name != "architecture" and (numbers or not d.choices):
            upper[name] = max(numbers) if d.choices else int(d.high) if d.whole else d.high
    return space.config({**upper, "architecture": architecture})
