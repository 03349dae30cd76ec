"""Whether the stores that a sweep has used are still there, MLflow's and the study's; and copies of sweeps.

What has gone is said; it is never made again empty. A copy writes nothing into its original.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
from pathlib import Path

from pipeline.config import SweepPaths
from pipeline.errors import SweepError, redact
from pipeline.search.study_trials import begun_trials
from pipeline.storage.addresses import sqlite_path
from pipeline.storage.database import same_database
from pipeline.storage.database_kinds import shown
from pipeline.storage.files import write_text
from pipeline.storage.lock import sweep_lock
from pipeline.storage.moved_sweep import either, read_sweep_toml, recorded_folder, store_places
from pipeline.sweep.manifest import Manifest, SweepFacts, manifest_of
from pipeline.sweep.request import Request
from pipeline.tracking.event_log import EventLog, sweep_id
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


def begin_own_history(paths: SweepPaths, event_log: EventLog, uri: str) -> None:
    """Have a copy of a sweep get runs of its own in the MLflow store at `uri`, where its original has some.

    Must be called before sweep.toml is written, after which the copy is not known as one.
    """
    original = original_of(paths)
    if original and _shares_tracking(original, uri):
        log.info(f"this is a copy of the sweep in {original}: in MLflow it gets runs of its own")
        event_log.begin_history()


def _shares_tracking(original: Path, uri: str) -> bool:
    """Whether the sweep in `original` may have its runs in the store at `uri` too: a file may be a copy."""
    other = str(read_sweep_toml(SweepPaths(original)).get("registry", {}).get("tracking_uri", ""))
    return sqlite_path(uri) is None or same_database(other, uri)


def keep_addresses(request: Request, before: Manifest, facts: SweepFacts, uri: str) -> None:
    """Write down where the images and the weights of a sweep that is over lie now; nothing else changes."""
    paths, now = request.paths, request.config
    if (now.data, now.extractor_weights) == (before.config.data, before.config.extractor_weights):
        return
    with sweep_lock(paths), contextlib.closing(EventLog(paths.event_log)) as event_log:
        begin_own_history(paths, event_log, uri)
        write_text(paths.config, manifest_of(request, facts, uri).to_toml())


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
    files = paths.trials.glob("*/records.jsonl")
    return frozenset(
        int(file.parent.name) for file in files if file.parent.name.isdecimal() and file.stat().st_size
    )
