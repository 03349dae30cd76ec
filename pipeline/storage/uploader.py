"""The thread that carries a sweep's folder to its store while the sweep runs.

Owns: when, patience with a store that is away, what of trials is brought here. Refuses: letting an outage
reach the search.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from pathlib import Path

from pipeline.storage.sync import LOGS, FolderSync

log = logging.getLogger(__name__)

PERIOD_SEC = 2.0
LONGEST_SEC = 30.0
"""Between two tries while the store is away."""
_IDLE = 30
"""Looking for changes takes at most about this fraction of a core."""


class Uploader:
    """Carries what changes in the folder of `mirror` until closed."""

    def __init__(self, mirror: FolderSync) -> None:
        self._mirror = mirror
        self._over: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self.error = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address of the sweep."""
        return self._mirror.store.url

    def bring(self, path: Path) -> None:
        """Fetch a file that a worker wrote; while the store is away it stays there."""
        if not self.error:
            with contextlib.suppress(OSError):
                self._mirror.pull_file(self._key(path))

    def bring_folder(self, folder: Path) -> None:
        """Fetch what the worker of a trial left in its folder, but checkpoints; or as much as can be had."""
        with contextlib.suppress(OSError):
            self._mirror.pull(self._key(folder), lambda key: "/state-" not in key)

    def sealed(self) -> int:
        """How many bytes of the sweep's log are in the store."""
        return self._mirror.sealed(LOGS[0])

    def over(self, folder: Path) -> None:
        """Trials below `folder` go on nowhere: their checkpoints are deleted in the store."""
        self._over.put(folder)

    def close(self, timeout: float) -> bool:
        """Carry what is left, for at most about `timeout` seconds; False where the store did not take it."""
        self._stop.set()
        self._thread.join(timeout)
        end = time.monotonic() + timeout
        while not self.carry():
            if time.monotonic() > end or self._thread.is_alive():
                return False
            time.sleep(1.0)
        return True

    def _work(self) -> None:
        wait = PERIOD_SEC
        while not self._stop.wait(wait):
            began = time.thread_time()
            carried = self.carry()
            busy = _IDLE * (time.thread_time() - began)  # of a folder with very many files
            wait = max(PERIOD_SEC, busy) if carried else min(2 * wait, LONGEST_SEC)

    def carry(self) -> bool:
        """Put what has changed by now; False, and told once, where the store does not take it."""
        try:
            self._mirror.push()
            self._forget()
        except OSError as error:
            if not self.error:
                log.warning(f"{self.url} is away, the sweep goes on and is carried later: {error}")
            self.error = str(error)
            return False
        if self.error:
            log.info(f"{self.url} answers again, and has everything")
        self.error = ""
        return True

    def _key(self, path: Path) -> str:
        return path.relative_to(self._mirror.root).as_posix()

    def _forget(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                key = self._key(self._over.get_nowait())
                self._mirror.store.delete(k for k in self._mirror.store.listing(key) if "/state-" in k)
