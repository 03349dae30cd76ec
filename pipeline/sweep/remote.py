"""A sweep that lives in an object store: taken here, carried while it runs, let go.

Owns: what must hold for it, its lock, what of its trials comes to this machine and when. Refuses: how files
are carried (`pipeline.storage`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator

from pipeline.config import SweepPaths
from pipeline.errors import ConfigError, GansweepError, SweepError, redact
from pipeline.records import TrialRecord
from pipeline.search.trial_manager import SweepTrial
from pipeline.storage.lock import store_lock
from pipeline.storage.object_store import ObjectStore, store_error
from pipeline.storage.sync import FolderSync, is_scratch_file
from pipeline.storage.uploader import Uploader
from pipeline.sweep.request import Request
from pipeline.training.checkpoint import Failure, grid_path

_CARRY_SEC = 120.0
"""For what is left at the end."""


def check_remote(request: Request) -> None:
    """What a sweep in an object store needs, asked before anything starts.

    Raises:
        UserError: its study or its runs would stay on this machine, or the store cannot be used.
    """
    if not request.storage.startswith("postgres"):
        raise ConfigError(
            "a sweep in an object store has its study in PostgreSQL, and its lock",
            seen=f"--storage {redact(request.storage)}" if request.storage else "no --storage",
            fix="add --storage postgresql://HOST/DATABASE (or GANSWEEP_STORAGE)",
        )
    if not request.tracking_uri:
        raise ConfigError(
            "a sweep in an object store has its runs on a tracking server",
            seen="no --tracking-uri",
            fix="add --tracking-uri http://HOST:5000 (or MLFLOW_TRACKING_URI), or an sqlite:///FILE of yours",
        )
    opened(request.url).check()


def opened(url: str) -> ObjectStore:
    """The store at `url`; SweepError where it cannot be."""
    try:
        return ObjectStore(url)
    except OSError as error:
        raise store_error(url, error) from error


@contextlib.contextmanager
def uploaded_sweep(request: Request) -> Iterator[Request]:
    """The request with its sweep here and, while the block lasts, every change on its way to the store.

    Of a sweep in a folder: as it is. A dry run takes what it compares, and carries nothing.

    Raises:
        SweepError: another process works on the sweep, or the store cannot be used.
        GansweepError: it did not take the sweep's last changes.
    """
    if not request.store:
        yield request
        return
    store = opened(request.url)
    mirror = FolderSync(store, request.paths.root, lambda key: not is_scratch_file(key))
    if request.dry_run:
        _take(mirror, only=("sweep.toml", "summary.json"))
        yield request
        return
    with store_lock(store.url, request.storage):
        _take(mirror)
        courier = Uploader(mirror)
        try:
            yield dataclasses.replace(request, courier=courier)
        finally:
            whole = courier.close(_CARRY_SEC)
        if not whole:
            again = f"when it answers: gansweep resume {request.place}"
            raise GansweepError(f"{store.url} has not got the last changes ({courier.error}); {again}")


def _take(mirror: FolderSync, only: tuple[str, ...] = ()) -> None:
    """Make the folder here like the store, which is the truth."""
    store = mirror.store
    try:
        there = store.listing()
        if there and "sweep.toml" not in there:
            fix = "choose another --name or --out"
            raise SweepError("a new sweep's place in a store is empty", seen=store.url, fix=fix)
        if not there:
            shutil.rmtree(mirror.root, ignore_errors=True)  # of a sweep that is no more
        if only:
            mirror.pull("", lambda key: key in only)
            return
        store.delete(["stop"])  # of a process that was ended
        mirror.pull()
        store.delete(mirror.spare)
    except OSError as error:
        raise store_error(store.url, error) from error


class FetchTrialFiles:
    """A `Listener` of the search, before all others: has here what they look at of a trial."""

    def __init__(self, courier: Uploader, paths: SweepPaths) -> None:
        self._courier, self._paths = courier, paths

    def on_start(self, entry: SweepTrial) -> None:
        """Nothing of it is there yet."""

    def on_record(self, entry: SweepTrial, record: TrialRecord) -> None:
        self._courier.bring(grid_path(self._paths.trial(entry.number), record.kimg))

    def on_failure(self, entry: SweepTrial, failure: Failure) -> None:
        """It is told in full."""

    def on_end(self, entry: SweepTrial) -> None:
        self._courier.over(self._paths.trial(entry.number))
