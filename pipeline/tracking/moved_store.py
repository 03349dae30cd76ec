"""An sqlite store that has gone, or was moved with its artifacts, which its rows name by the old folder.

MLflow keeps absolute locations of artifacts. The tables and columns here are those of MLflow 3.17, no part of
its public API; those that an installed version lacks are passed over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.config import SweepPaths
from pipeline.errors import RegistryError, first_line
from pipeline.storage.addresses import sqlite_path
from pipeline.storage.files import read_json
from pipeline.storage.moved_sweep import either, holds_row, store_places
from pipeline.tracking._compat import forget_artifact_folders

log = logging.getLogger(__name__)

_COLUMNS = (
    *(("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")),
    *(("model_versions", "source"), ("model_versions", "storage_location")),
)
_OURS = """select distinct artifact_location from experiments
           where name like 'gansweep/%' or name = 'gansweep-models'"""
_LOCK_SEC = 30.0


def check_store_remains(paths: SweepPaths, uri: str, command: str) -> None:
    """Check that an sqlite store in which a sweep has its run is there: it is not made again empty.

    command: what may be typed with another store, to begin a new history.

    Raises:
        RegistryError: it has gone.
    """
    path, run = sqlite_path(uri), read_json(paths.export_cursor).get("parent")
    if path is None or not run:
        return
    places = store_places(paths, "tracking_uri")
    if not (os.path.isfile(path) and os.path.getsize(path)) and path in places:
        raise RegistryError(
            "the tracking store {seen} of this sweep has gone",
            rule="its runs are in it, and it is not made again empty",
            seen=str(path),
            fix=f"move it back to {either(places)}, or begin a new history: "
            f"{command} --tracking-uri sqlite:///NEW.db",
        )
    if not holds_row(path, "runs", "run_uuid", str(run)):
        log.warning(f"{path} has no run of this sweep: a resume or sync sends its whole history there")


def without_gaps(uri: str) -> str:
    """An address of sweep.toml; RegistryError where it had a password, which is written to no file."""
    if "***" not in uri or sqlite_path(uri):
        return uri
    raise RegistryError(
        "the tracking address in sweep.toml cannot be used",
        rule="passwords are never written to a file",
        seen=uri,
        fix="give all of it: --tracking-uri, or MLFLOW_TRACKING_URI",
    )


def follow_artifacts(uri: str) -> None:
    """Have the rows of an sqlite store name the artifacts beside it, if it was moved or copied with them.

    Those of other programs stay as they are. Must be called before MLflow opens the store to write.

    Raises:
        RegistryError: they cannot be changed; then nothing was.
    """
    path = sqlite_path(uri)
    if path is None or not os.path.isfile(path):
        return
    try:
        with _opened(path, "rw") as session:
            if not _moves(path, session):
                return
            session.execute("begin immediate")
            moves = _moves(path, session)
            for old, new in moves.items():
                _rename(session, old, new)
            session.execute("commit")
    except sqlite3.Error as error:
        raise RegistryError(
            "the tracking store was moved, and its artifacts' addresses cannot be brought up to date",
            rule="it must be writable",
            seen=f"{path} ({first_line(error)})",
            fix="make it writable, or move it back",
        ) from error
    forget_artifact_folders()
    for old, new in moves.items():
        log.info(f"{path} was moved from {_folder(old).parent}: its artifacts are those in {_folder(new)}")


def location_now(uri: str, location: str) -> str:
    """Where artifacts lie that the store at `uri` has at `location`: beside it, if it was moved with them."""
    path = sqlite_path(uri)
    if path is None or not os.path.isfile(path):
        return location
    with contextlib.suppress(sqlite3.Error), _opened(path, "ro") as session:
        for old, new in _moves(path, session).items():
            if location.startswith(f"{old}/"):
                return new + location.removeprefix(old)
    return location


@contextlib.contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    session = sqlite3.connect(uri, uri=True, timeout=_LOCK_SEC, isolation_level=None)
    with contextlib.closing(session):
        yield session


def _moves(path: Path, session: sqlite3.Connection) -> dict[str, str]:
    """Locations of gansweep's artifacts that are to be replaced, and by which."""
    if ("experiments", "artifact_location") not in _columns(session):
        return {}
    here = path.parent / "artifacts"
    found = (str(location) for (location,) in session.execute(_OURS) if location)
    moved = (old for old in found if old.startswith("file:") and _folder(old).name == here.name)
    return {old: here.as_uri() for old in moved if _has_moved(session, old, here)}


def _has_moved(session: sqlite3.Connection, old: str, here: Path) -> bool:
    """Whether the artifacts at `old` are `here` by now: nothing is left there that is not here too."""
    before = _folder(old)
    if before == here or (os.path.exists(before) and here.exists() and before.samefile(here)):
        return False
    for table, column in _columns(session):
        query = f'select "{column}" from "{table}" where {_inside(column)}'
        rows = session.execute(query, _inside_of(old))
        inside = (_folder(str(location)).relative_to(before) for (location,) in rows)
        if any(os.path.exists(before / name) and not (here / name).exists() for name in inside):
            return False
    return True


def _rename(session: sqlite3.Connection, old: str, new: str) -> None:
    for table, column in _columns(session):
        changed = f'"{column}" = ? || substr("{column}", ?)'
        session.execute(
            f'update "{table}" set {changed} where {_inside(column)}',
            (new, len(old) + 1, *_inside_of(old)),
        )


def _inside(column: str) -> str:
    """The condition that a column names a location or one below it, for the parameters `_inside_of`."""
    return f'"{column}" = ? or substr("{column}", 1, ?) = ?'


def _inside_of(location: str) -> tuple[str, int, str]:
    return location, len(location) + 1, f"{location}/"


def _columns(session: sqlite3.Connection) -> list[tuple[str, str]]:
    """Those of `_COLUMNS` that the store has."""
    return [
        (table, column)
        for table, column in _COLUMNS
        if any(row[1] == column for row in session.execute(f'pragma table_info("{table}")'))
    ]


def _folder(location: str) -> Path:
    return Path(unquote(urlsplit(location).path))
