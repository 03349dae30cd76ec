"""What one call asks for, and what came of it.

Owns: `Request`, `Outcome`. Refuses: doing anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import registry
from pipeline.config import SweepConfig, SweepPaths
from pipeline.spaces import Space


@dataclass(frozen=True)
class Request:
    """What one call asks for.

    register: a model's name, or None. promote: how far its version may rise by itself. recipe: the point to
    begin from, which leaves the fixed parameters `kept` alone. code: where networks of the user's own stand.
    measure: whether a dry run tries the largest trial. notify: an address to tell news to, written to no
    file. say: told each step in a line.
    """

    space: Space
    config: SweepConfig
    out: Path
    register: str | None
    recipe: str = ""
    kept: frozenset[str] = frozenset()
    code: Path | None = None
    tracking_uri: str = ""
    storage: str = ""
    dry_run: bool = False
    measure: bool = False
    live: bool = False
    promote: str = registry.CHAMPION
    notify: str = field(default="", repr=False)
    say: Callable[[str], None] = print

    @property
    def paths(self) -> SweepPaths:
        return SweepPaths((self.out / self.config.name).resolve())


@dataclass(frozen=True)
class Outcome:
    """What came of it. state: `finished`, `interrupted`, `failed` or `planned` (a dry run)."""

    state: str
    root: Path
    summary: dict[str, Any]
    tracking_uri: str
    plan: tuple[tuple[str, str], ...] = ()
