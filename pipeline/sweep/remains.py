"""Whether what a sweep has used is still there: its images, its MLflow store, its study.

What has gone is said; it is never made again empty.
"""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path

from pipeline.config import SweepConfig, SweepPaths
from pipeline.errors import DataError, EvaluatorError, SweepError
from pipeline.search.study_trials import begun_trials
from pipeline.storage.addresses import parse_source, sqlite_path
from pipeline.sweep.request import Request
from pipeline.tracking.moved_store import check_store_remains

log = logging.getLogger(__name__)


def check_inputs_remain(config: SweepConfig, location: str) -> None:
    """Check that the images and the extractor's weights of a sweep that exists lie where it says.

    location: the sweep's folder or address.

    Raises:
        DataError, EvaluatorError: they do not.
    """
    source, weights = parse_source(config.data), config.extractor_weights
    again = f"move them back, or say where they are: gansweep resume {shlex.quote(location)}"
    if source and not os.path.exists(source.path):
        fix = f"{again} --data {source.prefix}PATH"
        raise DataError("the images of this sweep have gone from {seen}", seen=source.path, fix=fix)
    if weights and not os.path.exists(weights):
        fix = f"{again} --extractor-weights PATH"
        raise EvaluatorError("the extractor's weights have gone from {seen}", seen=weights, fix=fix)


def check_stores_remain(request: Request, uri: str) -> None:
    """Check that the stores which a sweep that exists has used are there, and hold it.

    uri: the MLflow store.

    Raises:
        RegistryError, SweepError: one has gone.
    """
    check_store_remains(request.paths, uri, f"gansweep resume {shlex.quote(request.location)}")
    _check_study(request)


def _check_study(request: Request) -> None:
    paths, storage = request.paths, request.storage or request.paths.study
    folders = trials_with_records(paths)
    begun = begun_trials(storage, request.config.name) if folders else None
    if begun is None:
        return
    if not begun & folders:
        where = paths.study if isinstance(storage, Path) else sqlite_path(storage) or "the database"
        beside = (
            f"move it back, or to {paths.root.parent}, or "
            if sqlite_path(str(storage))
            else "restore it, or "
        )
        raise SweepError(
            f"{{seen}} has no trial of this sweep, whose folder has {len(folders)}",
            rule="a sweep goes on with the study it began with",
            seen=str(where),
            fix=beside + "begin a new sweep with another --name",
        )
    if unknown := sorted(folders - begun):
        log.warning(
            f"the study does not know of trials {', '.join(map(str, unknown))}: they are trained again"
        )


def trials_with_records(paths: SweepPaths) -> frozenset[int]:
    """The numbers of the trials in the sweep's folder that have reported."""
    files = (paths.root / "trials").glob("*/records.jsonl")
    return frozenset(
        int(file.parent.name) for file in files if file.parent.name.isdecimal() and file.stat().st_size
    )
