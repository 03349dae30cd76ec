"""What one call asks for, and what came of it.

Owns: `Request`, `Outcome`. Refuses: doing anything.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import SweepConfig, SweepPaths
from pipeline.search.space.definition import Space
from pipeline.storage.uploader import Uploader
from pipeline.storage.url import join_url, scratch_dir
from pipeline.tracking.registry.promote import CHAMPION


@dataclass(frozen=True)
class Request:
    """What one call asks for.

    register: a model's name, or None. promote: how far its version may rise by itself. recipe: the point to
    begin from, which leaves the fixed parameters `kept` alone. code: where networks of the user's own stand.
    measure: whether a dry run tries the largest trial. notify: an address to tell news to, written to no
    file. store: the address that `out` stands for, where sweeps live in an object store; courier: carries
    this one there.
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
    store: str = ""
    courier: Uploader | None = field(default=None, repr=False)
    dry_run: bool = False
    measure: bool = False
    live: bool = False
    promote: str = CHAMPION
    notify: str = field(default="", repr=False)

    @property
    def paths(self) -> SweepPaths:
        return SweepPaths(scratch_dir(self.url) if self.store else (self.out / self.config.name).resolve())

    @property
    def url(self) -> str:
        """The address of the sweep; empty where it lives in a folder."""
        return join_url(self.store, self.config.name) if self.store else ""

    @property
    def place(self) -> str:
        """What a later call names the sweep by."""
        near = os.path.relpath(self.paths.root)
        return self.url or (str(self.paths.root) if near.startswith("..") else near)


@dataclass(frozen=True)
class Outcome:
    """What came of it. state: finished, interrupted, failed or planned (a dry run). place: the request's."""

    state: str
    root: Path
    summary: dict[str, Any]
    tracking_uri: str
    place: str = ""
    plan: tuple[tuple[str, str], ...] = ()
