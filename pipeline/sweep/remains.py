"""Whether the stores that a sweep has used are still there: MLflow's and the study's.

What has gone is said; it is never made again empty.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from pipeline.config import SweepPaths
from pipeline.errors import SweepError
from pipeline.search.study_trials import begun_trials
from pipeline.storage.database_kinds import shown
from pipeline.storage.moved_sweep import either, store_places
from pipeline.sweep.manifest import Manifest
from pipeline.sweep.request import Request
from pipeline.tracking.moved_store import check_store_remains

log = logging.getLogger(__name__)


def check_stores_remain(request: Request, manifest: Manifest, uri: str) -> None:
    """Check that the stores which a sweep that exists has used are there, and hold it.

    manifest: of the sweep. uri: the MLflow store.

    Raises:
        RegistryError, SweepError: one has gone.
    """
    check_store_remains(request.paths, uri, f"gansweep resume {shlex.quote(request.location)}")
    _check_study(request, manifest.registry.storage)


def _check_study(request: Request, known: str) -> None:
    """known: the study's database in sweep.toml; "" = a journal file."""
    paths, storage = request.paths, request.storage or request.paths.study
    folders = trials_with_records(paths)
    begun = begun_trials(storage, request.config.name) if folders else None
    if begun is None:
        return
    if not begun & folders:
        raise SweepError(
            f"{{seen}} has no trial of this sweep, whose folder has {len(folders)}",
            rule="a sweep goes on with the study it began with",
            seen=str(storage) if isinstance(storage, Path) else shown(storage),
            fix=f"{_back(paths, request.storage, known)}, or begin a new sweep with another --name",
        )
    if unknown := sorted(folders - begun):
        log.warning(
            f"the study does not know of trials {', '.join(map(str, unknown))}: they are trained again"
        )


def _back(paths: SweepPaths, storage: str, known: str) -> str:
    """What brings the study back."""
    if not storage:
        return "restore it from a copy"
    if storage != known and "***" not in known:
        return f"give --storage {shlex.quote(known)}"
    places = store_places(paths, "storage")
    return f"move it back to {either(places)}" if places else "restore it from a backup"


def trials_with_records(paths: SweepPaths) -> frozenset[int]:
    """The numbers of the trials in the sweep's folder that have reported."""
    files = (paths.root / "trials").glob("*/records.jsonl")
    return frozenset(
        int(file.parent.name) for file in files if file.parent.name.isdecimal() and file.stat().st_size
    )
