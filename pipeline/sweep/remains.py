"""Whether the stores that a sweep has used are still there: MLflow's and the study's.

What has gone is said; it is never made again empty.
"""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path

from pipeline.config import SweepPaths
from pipeline.errors import SweepError, redact
from pipeline.search.study_trials import begun_trials
from pipeline.storage.database import same_database
from pipeline.storage.database_kinds import shown
from pipeline.storage.moved_sweep import either, read_sweep_toml, recorded_folder, store_places
from pipeline.sweep.manifest import Manifest
from pipeline.sweep.request import Request
from pipeline.tracking.event_log import sweep_id
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
    _check_copy(request)


def original_of(paths: SweepPaths) -> Path | None:
    """The sweep, still in its folder, of which this one is a copy that was not run yet; None = it is none."""
    lay = recorded_folder(paths)
    if lay is None or not os.path.isdir(lay) or lay.samefile(paths.root):
        return None
    ids = [sweep_id(SweepPaths(folder).event_log) for folder in (lay, paths.root)]
    return lay if ids[0] and ids[0] == ids[1] else None


def shares_tracking(original: Path, uri: str) -> bool:
    """Whether the sweep in `original` has its runs in the MLflow store at `uri` too."""
    other = str(read_sweep_toml(SweepPaths(original)).get("registry", {}).get("tracking_uri", ""))
    return other == redact(uri) or same_database(other, uri)


def _check_copy(request: Request) -> None:
    """SweepError where a copied sweep would go on with the very study of its original."""
    original = original_of(request.paths)
    if original is None or not request.storage:
        return
    other = str(read_sweep_toml(SweepPaths(original)).get("registry", {}).get("storage", ""))
    if other == redact(request.storage) or same_database(other, request.storage):
        raise SweepError(
            f"this is a copy of the sweep in {{seen}}, whose study is in {shown(request.storage)}",
            rule="two sweeps cannot go on with one study",
            seen=str(original),
            fix="go on there, or copy the database too and name the copy with --storage",
        )


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
