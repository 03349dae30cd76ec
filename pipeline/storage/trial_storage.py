"""The folder in which a trial works on its node: the sweep's, or a local copy of the sweep's object store.

Responsible for what a trial downloads before it begins and uploads with each record; not for training.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pipeline.storage.object_store import ObjectStore
from pipeline.storage.sync import FolderSync
from pipeline.storage.url import scratch_dir

FETCH_SEC, PUBLISH_SEC = 120.0, 60.0
"""How long an unreachable store is retried: before a trial begins (then the trial fails, and Ray retries it),
and with each record (then the trial continues, and the next record uploads everything)."""
_STOP_CHECK_SEC = 3.0
_MIN_AGE_SEC = 600.0
"""Younger checkpoints may belong to a trial that runs on this node."""


class TrialStorage:
    """The sweep's folder `root`, which all nodes share: nothing has to be copied."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fetch(self, folder: Path) -> None:
        """Make a folder of the sweep equal to what the last worker published.

        Raises:
            OSError: the store does not answer.
        """

    def publish(self, folder: Path) -> str:
        """Make a folder of the sweep visible to all nodes; returns why that has failed, or an empty text."""
        return ""

    def stop_requested(self) -> bool:
        """Whether the sweep ends, and with it its trials."""
        return (self.root / "stop").exists()


class _RemoteTrialStorage(TrialStorage):
    """A folder of this node that is a working copy of the store at `url`."""

    def __init__(self, url: str) -> None:
        super().__init__(scratch_dir(url, "node"))
        # failures.jsonl is written by the process that runs the sweep.
        self._sync = FolderSync(ObjectStore(url), self.root, lambda key: not key.endswith("failures.jsonl"))
        self._stop_checked, self._stop_requested = 0.0, False

    def fetch(self, folder: Path) -> None:
        def attempt() -> None:
            self._delete_stale()
            self._sync.pull(self._sync.key(folder))

        _retry(attempt, FETCH_SEC)

    def publish(self, folder: Path) -> str:
        try:
            _retry(lambda: self._sync.push(self._sync.key(folder)), PUBLISH_SEC)
        except OSError as error:
            return f"{self._sync.store.url} is unreachable, the trial goes on on its node alone: {error}"
        return ""

    def stop_requested(self) -> bool:
        if time.monotonic() - self._stop_checked > _STOP_CHECK_SEC:
            try:
                self._stop_requested = self._sync.store.exists("stop")
            except OSError:
                self._stop_requested = False
            self._stop_checked = time.monotonic()
        return self._stop_requested

    def _delete_stale(self) -> None:
        """Delete old local checkpoints of trials that have none in the store any more: they have ended."""
        store, now = self._sync.store, time.time()
        for folder in self.root.glob("trials/*"):
            old = [path for path in folder.glob("state-*") if now - path.stat().st_mtime > _MIN_AGE_SEC]
            if old and not any("/state-" in key for key in store.list_keys(self._sync.key(folder))):
                for path in old:
                    path.unlink(missing_ok=True)


def _retry(action: Callable[[], object], seconds: float) -> None:
    """Do `action` each second until it raises no OSError; raise the last one after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        try:
            action()
            return
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(1.0)


def trial_storage(root: str, url: str) -> TrialStorage:
    """The storage of a sweep's trials: the folder `root`, or a local copy of the store at `url` if given.

    Raises:
        OSError: the store cannot be opened.
    """
    return _RemoteTrialStorage(url) if url else TrialStorage(Path(root))
