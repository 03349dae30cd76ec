"""A sweep that lives in an object store: taken here, carried while it runs, let go.

Owns: what must hold for it, its lock, what of its trials comes to this machine and when. Refuses: how files
are carried (`pipeline.stores`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator

from pipeline.checkpoint import Failure, grid_path
from pipeline.config import SweepPaths
from pipeline.errors import ConfigError, GansweepError, SweepError
from pipeline.records import TrialRecord
from pipeline.search import Entry
from pipeline.stores import Courier, Mirror, Store, needless
from pipeline.stores.store import unusable
from pipeline.sweep.lock import held_everywhere
from pipeline.sweep.request import Request
from pipeline.tracker import redact

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


def opened(url: str) -> Store:
    """The store at `url`; SweepError where it cannot be."""
    try:
        return Store(url)
    except OSError as error:
        raise unusable(url, error) from error


@contextlib.contextmanager
def carried(request: Request) -> Iterator[Request]:
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
    mirror = Mirror(store, request.paths.root, lambda key: not needless(key))
    if request.dry_run:
        _take(mirror, only=("sweep.toml", "summary.json"))
        yield request
        return
    with held_everywhere(store.url, request.storage):
        _take(mirror)
        courier = Courier(mirror, request.say)
        try:
            yield dataclasses.replace(request, courier=courier)
        finally:
            whole = courier.close(_CARRY_SEC)
        if not whole:
            again = f"when it answers: gansweep resume {request.place}"
            raise GansweepError(f"{store.url} has not got the last changes ({courier.error}); {again}")


def _take(mirror: Mirror, only: tuple[str, ...] = ()) -> None:
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
        raise unusable(store.url, error) from error


class Bringer:
    """A `Listener` of the search, before all others: has here what they look at of a trial."""

    def __init__(self, courier: Courier, paths: SweepPaths) -> None:
        self._courier, self._paths = courier, paths

    def on_start(self, entry: Entry) -> None:
        """Nothing of it is there yet."""

    def on_record(self, entry: Entry, record: TrialRecord) -> None:
        self._courier.bring(grid_path(self._paths.trial(entry.number), record.kimg))

    def on_failure(self, entry: Entry, failure: Failure) -> None:
        """It is told in full."""

    def on_end(self, entry: Entry) -> None:
        self._courier.over(self._paths.trial(entry.number))
