"""Events of a trial besides its records. Programs depend on their `kind`, never on the text."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

log = logging.getLogger(__name__)


class EventKind(StrEnum):
    """Kinds of events. Those that are failures are also kinds in failures.jsonl (`FAILURE_KINDS`)."""

    OUT_OF_MEMORY = "out of memory"
    DISK_FULL = "disk full"
    STORE_AWAY = "store away"
    DAMAGED_CHECKPOINT = "damaged checkpoint"
    DISK_HAS_SPACE = "disk has space"
    NO_CUDA_GRAPHS = "no cuda graphs"

    @property
    def is_failure(self) -> bool:
        """Whether it counts as a failure of the trial, which continues nevertheless."""
        return self not in (EventKind.DISK_HAS_SPACE, EventKind.NO_CUDA_GRAPHS)

    @property
    def level(self) -> int:
        """The level of `logging` at which it is logged."""
        return logging.INFO if self is EventKind.DISK_HAS_SPACE else logging.WARNING


@dataclass(frozen=True)
class TrialEvent:
    """One event of a trial. text: one line for people."""

    kind: EventKind
    text: str


OnEvent = Callable[[TrialEvent], object]


def log_event(event: TrialEvent) -> None:
    """The default `on_event`."""
    log.log(event.kind.level, "%s", event.text)
