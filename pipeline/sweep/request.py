"""`Request`: everything one call of `run` or `resume` asks for."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import redact
from pipeline.search.space.definition import Space
from pipeline.storage.addresses import sqlite_path
from pipeline.storage.url import join_url, scratch_dir
from pipeline.tracking.registry.names import CHAMPION


@dataclass(frozen=True)
class Request:
    """What one call asks for.

    Attributes:
        space: what is searched; where the images choose it, it has the values of `--set` alone until then.
        space_by_images: whether they choose it, which `resolve_for_images` does.
        out: the folder below which the sweep's folder is made.
        folder: its name there or in the store, if it is not the sweep's: that of a sweep that was moved.
        register: name of the registered model; None = none is registered.
        recipe: the published configuration to begin from; "" = none.
        overrides: hyper-parameters that the user has fixed; the recipe does not change them.
        code_folders: where the user's own modules may lie.
        tracking_uri: MLflow's address; "" = the SQLite file in `out`.
        storage: Optuna's database URL; "" = a journal file in the sweep's folder.
        store: the object store's address that replaces `out`; "" = none.
        dry_run: check everything, train the largest trial for a moment, return the plan.
        live: redraw the live view in place on a terminal.
        promote: the highest alias that the new version may get by itself: never, candidate or champion.
        notify: a webhook's address; it is written to no file.
    """

    space: Space
    config: SweepConfig
    out: Path
    register: str | None
    space_by_images: bool = False
    recipe: str = ""
    overrides: frozenset[str] = frozenset()
    code_folders: tuple[Path, ...] = ()
    tracking_uri: str = ""
    storage: str = ""
    store: str = ""
    folder: str = ""
    dry_run: bool = False
    live: bool = False
    promote: str = CHAMPION
    notify: str = field(default="", repr=False)

    @property
    def paths(self) -> SweepPaths:
        """The sweep's files on this machine."""
        name = self.folder or self.config.name
        return SweepPaths(scratch_dir(self.url) if self.store else (self.out / name).resolve())

    @property
    def url(self) -> str:
        """The sweep's address in the object store; "" where it is kept in a folder."""
        return join_url(self.store, self.folder or self.config.name) if self.store else ""

    @property
    def location(self) -> str:
        """The folder or address by which a later command names the sweep."""
        near = os.path.relpath(self.paths.root)
        if near.startswith("-"):  # which would be an option
            near = f"./{near}"
        return self.url or (str(self.paths.root) if near.startswith("..") else near)

    def resume_command(self, uri: str) -> str:
        """The command that goes on with the sweep; it names the addresses whose passwords sweep.toml lacks.

        uri: the MLflow store.
        """
        words = ["gansweep", "resume", self.location]
        for flag, address in (("--tracking-uri", uri), ("--storage", self.storage)):
            if not sqlite_path(address) and redact(address) != address:
                words += [flag, redact(address)]
        return shlex.join(words)
