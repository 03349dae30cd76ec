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

from pipeline.storage.sync import FolderSync

log = logging.getLogger(__name__)

PERIOD_SEC = 2.0
MAX_WAIT_SEC = 30.0
"""Between two attempts while the store is unreachable."""
_IDLE = 30
"""After an upload the thread sleeps at least this many times the CPU time that it took."""


class Uploader:
    """The uploader of a sweep that is kept in a folder of this machine: it has nothing to do."""

    def fetch_file(self, path: Path) -> None:
        """Download a file that a worker uploaded; skipped while the store is unreachable."""

    def fetch_folder(self, folder: Path) -> None:
        """Download the folder of a trial without its checkpoints, as far as the store answers."""

    def uploaded_bytes(self) -> float:
        """How many bytes of the sweep's event log are in the store; infinite without a store."""
        return math.inf

    def delete_checkpoints(self, folder: Path) -> None:
        """Have the next upload delete all checkpoints below `folder` in the store: its trials have ended."""

    def upload(self) -> bool:
        """Upload what has changed; False if the store refused, which is logged once an outage."""
        return True


class StoreUploader(Uploader):
    """Uploads what changes in the folder of `sync` until `close`. error: of the last upload, or empty."""

    def __init__(self, sync: FolderSync) -> None:
        self._sync = sync
        self._ended: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self.error = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._thread.start()

    def fetch_file(self, path: Path) -> None:
        if not self.error:
            with contextlib.suppress(OSError):
                self._sync.pull_file(self._sync.key(path))

    def fetch_folder(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            self._sync.pull(self._sync.key(folder), lambda key: "/state-" not in key)

    def uploaded_bytes(self) -> float:
        return self._sync.uploaded_bytes

    def delete_checkpoints(self, folder: Path) -> None:
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
        url = self._sync.store.url
        try:
            self._sync.push()
            self._delete_queued()
        except OSError as error:
            if not self.error:
                log.warning(f"{url} is unreachable: the sweep goes on, and uploads later: {error}")
            self.error = str(error)
            return False
        if self.error:
            log.info(f"{url} answers again, and everything is uploaded")
        self.error = ""
        return True

    def _work(self) -> None:
        wait = PERIOD_SEC
        while not self._stop.wait(wait):
            began = time.thread_time()
            uploaded = self.upload()
            pause = _IDLE * (time.thread_time() - began)  # matters for a folder with very many files
            wait = max(PERIOD_SEC, pause) if uploaded else min(2 * wait, MAX_WAIT_SEC)

    def _delete_queued(self) -> None:
        store = self._sync.store
        with contextlib.suppress(queue.Empty):
            while True:
                folder = self._ended.get_nowait()
                try:
                    store.delete(k for k in store.list_keys(self._sync.key(folder)) if "/state-" in k)
                except OSError:
                    self._ended.put(folder)
                    raise
