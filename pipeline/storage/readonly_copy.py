"""A sweep in a store for those who only look: a copy of what they need, here, as it is now.

Owns: `visited`, `fetched`, `watched`. Refuses: changing the store, but for what a visitor says it made.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import SweepError
from pipeline.storage.files import write_bytes
from pipeline.storage.object_store import ObjectStore, store_error
from pipeline.storage.sync import FolderSync, Wanted, is_scratch_file
from pipeline.storage.url import is_url, scratch_dir

REFRESH_SEC = 5.0
_NEWS = ("sweep.toml", "summary.json", "spool.jsonl")


@contextlib.contextmanager
def readonly_copy(sweep: str, *made: str) -> Iterator[Path]:
    """The folder of a sweep as it is; or a copy of the one in a store, without what only its trials need.

    made: files that are put into the store afterwards, where the visitor has written them.

    Raises:
        SweepError: the store cannot be used, or has no such sweep.
    """
    if not is_url(sweep):
        yield Path(sweep)
        return
    with _copy(sweep) as mirror:
        _pull(mirror, lambda key: not is_scratch_file(key))
        yield mirror.root
        with _told(mirror.store.url):
            for name in made:
                if (mirror.root / name).is_file():
                    mirror.store.put(name, (mirror.root / name).read_bytes())


@contextlib.contextmanager
def fetched_sweep(sweep: str) -> Iterator[Path]:
    """The folder of a sweep for those who want its best generator; of one in a store, little else of it.

    Raises:
        SweepError: see `visited`.
    """
    if not is_url(sweep):
        yield Path(sweep)
        return
    with _copy(sweep) as mirror:
        _pull(mirror, lambda key: key in ("sweep.toml", "summary.json") or key.startswith("champion/"))
        if not (mirror.root / "champion" / "files.json").is_file():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                best = json.loads((mirror.root / "summary.json").read_bytes())["best"]["trial"]
                mirror.pull(f"trials/{int(best)}", lambda key: "/best-" in key)
        yield mirror.root


@contextlib.contextmanager
def watched_copy(sweep: str) -> Iterator[Path]:
    """The folder of a sweep; of one in a store, a copy of what tells how it stands, refreshed until left.

    Raises:
        SweepError: see `visited`.
    """
    if not is_url(sweep):
        yield Path(sweep)
        return
    left = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        mirror = FolderSync(_opened(sweep), Path(folder), lambda key: key in _NEWS)
        _pull(mirror, lambda key: key in _NEWS)

        def refresh() -> None:
            while not left.wait(REFRESH_SEC):
                with contextlib.suppress(OSError):
                    mirror.pull()

        thread = threading.Thread(target=refresh, name="watched", daemon=True)
        thread.start()
        try:
            yield mirror.root
        finally:
            left.set()
            thread.join()


def sweep_toml(url: str) -> Path:
    """Fetch the sweep.toml of the sweep at `url` into the folder that stands for it; returns that folder.

    Raises:
        SweepError: see `visited`.
    """
    with _told(url):
        store, root = ObjectStore(url), scratch_dir(url)
        root.mkdir(parents=True, exist_ok=True)
        write_bytes(root / "sweep.toml", store.get("sweep.toml"))
    return root


@contextlib.contextmanager
def _copy(sweep: str) -> Iterator[FolderSync]:
    """The copy, for one visitor at a time."""
    store = _opened(sweep)
    root = scratch_dir(store.url, "copy")
    root.mkdir(parents=True, exist_ok=True)
    mirror = FolderSync(store, root)
    with (root / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield mirror


def _opened(sweep: str) -> ObjectStore:
    with _told(sweep):
        return ObjectStore(sweep)


def _pull(mirror: FolderSync, wanted: Wanted) -> None:
    with _told(mirror.store.url):
        if not mirror.pull("", wanted):
            raise FileNotFoundError(f"{mirror.store.url} is not there")


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """The store's errors as the user's."""
    try:
        yield
    except FileNotFoundError as error:
        fix = "name s3://BUCKET/PREFIX/NAME, as `run` printed it"
        raise SweepError("a sweep's address holds a sweep.toml", seen=url, fix=fix) from error
    except OSError as error:
        raise store_error(url, error) from error
