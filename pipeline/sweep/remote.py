"""A sweep in an object store: downloaded at the start, uploaded while it runs, locked meanwhile."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from pipeline.config import SweepPaths
from pipeline.errors import ConfigError, GansweepError, redact
from pipeline.records import TrialRecord
from pipeline.search.trial_manager import SweepTrial
from pipeline.storage.lock import store_lock
from pipeline.storage.object_store import open_store, store_error
from pipeline.storage.sync import FolderSync, is_scratch_file
from pipeline.storage.uploader import StoreUploader, Uploader
from pipeline.sweep.manifest import not_empty
from pipeline.sweep.request import Request
from pipeline.training.checkpoint import grid_path

_CLOSE_SEC = 120.0
"""How long the last changes may take to upload at the end."""


def check_remote(request: Request) -> None:
    """Check what a sweep in an object store needs.

    Raises:
        UserError: its study or its MLflow runs would stay on this machine, or the store cannot be used.
    """
    if not request.storage.startswith("postgres"):
        raise ConfigError(
            "the study would not be in PostgreSQL",
            rule="a sweep in an object store has its study and its lock there",
            seen=f"--storage {redact(request.storage)}" if request.storage else "no --storage",
            fix="add --storage postgresql://HOST/DATABASE (or GANSWEEP_STORAGE)",
        )
    if not request.tracking_uri:
        raise ConfigError(
            "there is no --tracking-uri",
            rule="a sweep in an object store has its runs on a tracking server",
            fix="add --tracking-uri http://HOST:5000 (or MLFLOW_TRACKING_URI), or an sqlite:///FILE of yours",
        )
    open_store(request.url).check()


@contextlib.contextmanager
def uploaded_sweep(request: Request) -> Iterator[Uploader]:
    """Download the sweep of `request`, and upload every change while the block lasts.

    Yields its uploader, which does nothing where there is no store. A dry run downloads only what it
    compares, and uploads nothing.

    Raises:
        SweepError: another process works on the sweep, or the store cannot be used.
        GansweepError: the store did not take the sweep's last changes.
    """
    if not request.store:
        yield Uploader()
        return
    store = open_store(request.url)
    folder_sync = FolderSync(store, request.paths.root, lambda key: not is_scratch_file(key))
    if request.dry_run:
        _download(folder_sync, only=("sweep.toml", "summary.json"))
        yield Uploader()
        return
    with store_lock(store.url, request.storage):
        _download(folder_sync)
        uploader = StoreUploader(folder_sync)
        try:
            yield uploader
        finally:
            complete = uploader.close(_CLOSE_SEC)
        if not complete:
            again = f"when it answers: gansweep resume {request.location}"
            raise GansweepError(f"{store.url} has not got the last changes ({uploader.error}); {again}")


def _download(folder_sync: FolderSync, only: tuple[str, ...] = ()) -> None:
    """Make the folder on this machine equal to the store, or copy just the files `only`."""
    store = folder_sync.store
    try:
        keys = store.list_keys()
        if keys and "sweep.toml" not in keys:
            raise not_empty("address", store.url)
        if not keys:
            shutil.rmtree(folder_sync.root, ignore_errors=True)  # of a sweep that was deleted in the store
        if only:
            folder_sync.pull("", lambda key: key in only)
            return
        store.delete(["stop"])  # left by a process that was ended
        folder_sync.pull()
        store.delete(folder_sync.unused_segments)
    except OSError as error:
        raise store_error(store.url, error) from error


class FetchTrialFiles:
    """A `SweepCallback` that downloads the files of a trial that later callbacks read; it comes first."""

    def __init__(self, uploader: Uploader, paths: SweepPaths) -> None:
        self._uploader, self._paths = uploader, paths

    def _ignore(self, *event: object) -> None:
        """Nothing is needed of a trial that starts or fails."""

    on_start = on_failure = _ignore

    def on_record(self, trial: SweepTrial, record: TrialRecord) -> None:
        self._uploader.fetch_file(grid_path(self._paths.trial(trial.number), record.kimg))

    def on_end(self, trial: SweepTrial) -> None:
        self._uploader.delete_checkpoints(self._paths.trial(trial.number))
