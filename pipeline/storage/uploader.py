"""A thread that uploads changes of a sweep's folder to its object store while the sweep runs.

Responsible for when to upload, for retries while the store is unreachable, and for fetching files that
workers wrote. An outage of the store never raises into the search.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
from pathlib import Path
from typing import TypeAlias

from pipeline.storage.sync import LOGS, FolderSync

log = logging.getLogger(__name__)

PERIOD_SEC = 2.0
MAX_WAIT_SEC = 30.0
"""Between two attempts while the store is unreachable."""
_IDLE = 30
"""After an upload the thread sleeps at least this many times the CPU time that it took."""


class NullUploader:
    """The uploader of a sweep that is kept in a folder of this machine: its files are here already."""

    def fetch_file(self, path: Path) -> None:
        """Do nothing."""

    def fetch_folder(self, folder: Path) -> None:
        """Do nothing."""

    def uploaded_bytes(self) -> float:
        """All bytes of the event log are where they stay."""
        return math.inf

    def delete_checkpoints(self, folder: Path) -> None:
        """Do nothing."""

    def upload(self) -> bool:
        """Do nothing; True."""
        return True


class Uploader:
    """Uploads what changes in the folder of `sync` until `close`.

    Attributes:
        error: why the last upload failed; empty if it succeeded.
    """

    def __init__(self, sync: FolderSync) -> None:
        self._sync = sync
        self._ended: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self.error = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address of the sweep."""
        return self._sync.store.url

    def fetch_file(self, path: Path) -> None:
        """Download a file that a worker uploaded; skipped while the store is unreachable."""
        if not self.error:
            with contextlib.suppress(OSError):
                self._sync.pull_file(self._key(path))

    def fetch_folder(self, folder: Path) -> None:
        """Download the folder of a trial without its checkpoints, as far as the store answers."""
        with contextlib.suppress(OSError):
            self._sync.pull(self._key(folder), lambda key: "/state-" not in key)

    def uploaded_bytes(self) -> int:
        """How many bytes of the sweep's event log are in the store."""
        return self._sync.uploaded_bytes(LOGS[0])

    def delete_checkpoints(self, folder: Path) -> None:
        """Have the next upload delete all checkpoints below `folder` in the store: its trials have ended."""
        self._ended.put(folder)

    def close(self, timeout: float) -> bool:
        """Stop the thread and upload what is left, within about `timeout` seconds; False if that failed."""
        self._stop.set()
        self._thread.join(timeout)
        end = time.monotonic() + timeout
        while not self.upload():
            if time.monotonic() > end or self._thread.is_alive():
                return False
            time.sleep(1.0)
        return True

    def upload(self) -> bool:
        """Upload what has changed; False if the store refused, which is logged once an outage."""
        try:
            self._sync.push()
            self._delete_queued()
        except OSError as error:
            if not self.error:
                log.warning(f"{self.url} is unreachable: the sweep goes on, and uploads later: {error}")
            self.error = str(error)
            return False
        if self.error:
            log.info(f"{self.url} answers again, and everything is uploaded")
        self.error = ""
        return True

    def _work(self) -> None:
        wait = PERIOD_SEC
        while not self._stop.wait(wait):
            began = time.thread_time()
            uploaded = self.upload()
            pause = _IDLE * (time.thread_time() - began)  # matters for a folder with very many files
            wait = max(PERIOD_SEC, pause) if uploaded else min(2 * wait, MAX_WAIT_SEC)

    def _key(self, path: Path) -> str:
        return path.relative_to(self._sync.root).as_posix()

    def _delete_queued(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                key = self._key(self._ended.get_nowait())
                self._sync.store.delete(k for k in self._sync.store.list_keys(key) if "/state-" in k)


AnyUploader: TypeAlias = Uploader | NullUploader
