"""Local read-only copies of sweeps in object stores, for commands that only look.

A sweep in a folder is used as it is. Nothing in the store changes, except for files that a command declares
to have made (a report).
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import SweepError
from pipeline.storage.files import write_bytes
from pipeline.storage.lock import lock_file
from pipeline.storage.object_store import open_store, store_error
from pipeline.storage.summary_file import read_summary
from pipeline.storage.sync import FolderSync, KeyFilter, is_scratch_file
from pipeline.storage.url import is_url, scratch_dir

REFRESH_SEC = 5.0
_WATCHED = ("sweep.toml", "summary.json", "spool.jsonl")


@contextlib.contextmanager
def readonly_copy(sweep: str, *outputs: str) -> Iterator[Path]:
    """The folder of a sweep; of one in a store, a copy without the checkpoints and generators of its trials.

    outputs: files of the folder that are uploaded at the end of the block, if they exist.

    Raises:
        SweepError: the store cannot be used, or has no such sweep.
    """
    if not is_url(sweep):
        yield Path(sweep)
        return
    with _locked_copy(sweep, lambda key: not is_scratch_file(key)) as sync:
        yield sync.root
        with _as_sweep_error(sync.store.url):
            for name in outputs:
                if (sync.root / name).is_file():
                    sync.store.put(name, (sync.root / name).read_bytes())


@contextlib.contextmanager
def fetched_sweep(sweep: str) -> Iterator[Path]:
    """Like `readonly_copy`, but the copy holds the best generator and little else."""
    if not is_url(sweep):
        yield Path(sweep)
        return
    with _locked_copy(sweep, lambda key: key.startswith(("sweep.toml", "summary.json", "champion/"))) as sync:
        if not (sync.root / "champion" / "files.json").is_file():
            with contextlib.suppress(OSError, SweepError):
                summary = read_summary(sync.root / "summary.json")
                if summary and summary.best:
                    sync.pull(f"trials/{summary.best.trial}", lambda key: "/best-" in key)
        yield sync.root


@contextlib.contextmanager
def watched_copy(sweep: str) -> Iterator[Path]:
    """Like `readonly_copy`, but the copy holds the state alone, refreshed every `REFRESH_SEC` seconds."""
    if not is_url(sweep):
        yield Path(sweep)
        return
    closed = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        sync = FolderSync(open_store(sweep), Path(folder), lambda key: key in _WATCHED)
        _pull(sync)

        def refresh() -> None:
            while not closed.wait(REFRESH_SEC):
                with contextlib.suppress(OSError):
                    sync.pull()

        thread = threading.Thread(target=refresh, name="watched", daemon=True)
        thread.start()
        try:
            yield sync.root
        finally:
            closed.set()
            thread.join()


def fetch_sweep_toml(url: str) -> Path:
    """Download the sweep.toml of the sweep at `url` into its working copy; returns that folder.

    Raises:
        SweepError: the store cannot be used, or has no such sweep.
    """
    store, root = open_store(url), scratch_dir(url)
    root.mkdir(parents=True, exist_ok=True)
    with _as_sweep_error(url):
        write_bytes(root / "sweep.toml", store.get("sweep.toml"))
    return root


@contextlib.contextmanager
def _locked_copy(sweep: str, wanted: KeyFilter) -> Iterator[FolderSync]:
    """The copy of a sweep on this machine, for one process at a time."""
    store = open_store(sweep)
    root = scratch_dir(store.url, "copy")
    root.mkdir(parents=True, exist_ok=True)
    sync = FolderSync(store, root, wanted)
    with (root / "lock").open("ab") as lock:
        lock_file(lock, root / "lock")
        _pull(sync)
        yield sync


def _pull(sync: FolderSync) -> None:
    with _as_sweep_error(sync.store.url):
        if not sync.pull():
            raise FileNotFoundError(f"{sync.store.url} is not there")


@contextlib.contextmanager
def _as_sweep_error(url: str) -> Iterator[None]:
    """Raise the store's OSError as a SweepError."""
    try:
        yield
    except FileNotFoundError as error:
        raise SweepError(
            "there is no sweep at {seen}",
            rule="a sweep's address holds a sweep.toml",
            seen=url,
            fix="name s3://BUCKET/PREFIX/NAME, as `run` printed it",
        ) from error
    except OSError as error:
        raise store_error(url, error) from error
