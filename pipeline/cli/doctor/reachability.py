"""Whether the tracking store and the study's database can be used: what a sweep checks, writing nothing."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli.doctor.finding import Finding
from pipeline.errors import UserError
from pipeline.search.study_database import check_storage
from pipeline.storage.addresses import sqlite_path
from pipeline.storage.database import can_read, reading
from pipeline.storage.database_kinds import shown
from pipeline.tracking.store_schema import STORE
from pipeline.tracking.tracking_uri import check_server


def check_tracking(uri: str) -> Finding:
    """Whether a sweep could use the MLflow store at `uri`; passwords are not shown."""
    if not uri:
        return Finding("tracking", "bad", "a sweep in an object store needs a --tracking-uri")
    try:
        check_server(uri)
        return Finding("tracking", "ok", _found(uri))
    except UserError as error:
        return Finding("tracking", "bad", str(error))


def _found(uri: str) -> str:
    if not can_read(uri):
        return f"{shown(uri)} answers, and can be written"
    with reading(uri, STORE) as reader:
        if reader.tables:
            return f"{shown(uri)}: {reader.rows('runs', 'count(*)')[0][0]} runs"
    return f"{shown(uri)} will be {'made' if sqlite_path(uri) else 'filled'} by the first sweep"


def check_study(url: str, out: Path, tracking_uri: str) -> list[Finding]:
    """Whether a sweep below `out` could keep its study in the database at `url`; nothing where that is ""."""
    if not url:
        return []
    try:
        check_storage(url, "", new=True, out=out, tracking_uri=tracking_uri)
    except UserError as error:
        return [Finding("storage", "bad", str(error))]
    return [Finding("storage", "ok", f"{shown(url)} can be used")]
