"""Where a trial works on its node: in the sweep's folder where all nodes see it, else in one of its own.

Owns: what a trial takes from the store before it begins and gives back with each record. Refuses: training.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from pipeline.storage.object_store import ObjectStore
from pipeline.storage.sync import FolderSync
from pipeline.storage.url import scratch_dir

log = logging.getLogger(__name__)

TAKE_SEC, GIVE_SEC = 120.0, 60.0
"""Patience with a store that is away: before a trial begins (then it fails, and Ray tries it again), and with
each record (then it goes on, and the next record gives all)."""
_STOP_SEC = 3.0
_OLD_SEC = 600.0


class TrialStorage:
    """A folder that all nodes see: nothing is taken, nothing is given."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def take(self, folder: Path) -> None:
        """Have a folder of the sweep as the last one who worked in it left it."""

    def give(self, folder: Path) -> str:
        """Have all others see a folder of the sweep; where they do not yet, why, in a line."""
        return ""

    def stopped(self) -> bool:
        """Whether the sweep ends, and with it its trials."""
        return (self.root / "stop").exists()


class _RemoteTrialStorage(TrialStorage):
    """A folder of this node that stands for the store at `url`."""

    def __init__(self, url: str) -> None:
        super().__init__(scratch_dir(url, "node"))
        # failures.jsonl is written by the process that drives the sweep.
        self._mirror = FolderSync(ObjectStore(url), self.root, lambda key: not key.endswith("failures.jsonl"))
        self._looked, self._stopped = 0.0, False

    def take(self, folder: Path) -> None:
        end = time.monotonic() + TAKE_SEC
        while True:
            try:
                self._tidy()
                self._mirror.pull(self._key(folder))
                return
            except OSError:
                if time.monotonic() > end:
                    raise
            time.sleep(1.0)

    def give(self, folder: Path) -> str:
        end = time.monotonic() + GIVE_SEC
        while True:
            try:
                self._mirror.push(self._key(folder))
                return ""
            except OSError as error:
                if time.monotonic() > end:
                    return f"{self._mirror.store.url} is away, the trial goes on on its node alone: {error}"
            time.sleep(1.0)

    def stopped(self) -> bool:
        if time.monotonic() - self._looked > _STOP_SEC:
            try:
                self._stopped = self._mirror.store.holds("stop")
            except OSError:
                self._stopped = False
            self._looked = time.monotonic()
        return self._stopped

    def _tidy(self) -> None:
        """Delete old checkpoints of trials that are over: the store has none of them any more."""
        old = [p for p in self.root.glob("trials/*/state-*") if time.time() - p.stat().st_mtime > _OLD_SEC]
        for folder in {path.parent for path in old}:
            if not any("/state-" in key for key in self._mirror.store.listing(self._key(folder))):
                for path in old:
                    if path.parent == folder:
                        path.unlink(missing_ok=True)

    def _key(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix()


def trial_storage(root: str, url: str) -> TrialStorage:
    """Where trials of a sweep work: in its folder `root`, or on behalf of the store at `url`.

    Raises:
        OSError: the store cannot be opened.
    """
    return _RemoteTrialStorage(url) if url else TrialStorage(Path(root))
