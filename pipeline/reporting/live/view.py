"""The live view of a sweep, from its files alone: a block that redraws in place, or plain lines.

Owns: what a person sees while a sweep runs, in its own terminal (`View`) or in another one (`follow`).
Refuses: touching the search; it may run elsewhere. (pulse: what the spool tells; drawing: the picture.)
"""

from __future__ import annotations

import fcntl
import logging
import sys
import threading
import time
from typing import Any

from rich.console import Console
from rich.control import Control
from rich.live import Live

from pipeline.config import SweepPaths
from pipeline.errors import SweepError
from pipeline.reporting import history
from pipeline.reporting.live.drawing import block, line
from pipeline.reporting.live.progress import SweepProgress
from pipeline.storage.summary_file import read_summary

log = logging.getLogger(__name__)

DEAD = "dead"
"""What `follow` calls a sweep whose process is gone without a word."""

_REFRESH_SEC = 1.0
_LINE_SEC = 15.0
_SILENT_SEC = 30.0  # after so long without news the lock tells whether a process still works


class Picture:
    """One sweep's files, looked at again and again; `summary` is what the last look saw."""

    def __init__(self, paths: SweepPaths, console: Console) -> None:
        self.paths, self.summary = paths, read_summary(paths.summary)
        self._pulse = SweepProgress(paths.spool)
        self._plain = not console.encoding.lower().startswith("utf")
        self._full: int | None = None

    def look(self) -> bool:
        """Read the files again; False where there is no summary yet."""
        self.summary = read_summary(self.paths.summary) or self.summary
        self._pulse.look()
        if self._full is None:
            self._full = history.full_kimg(self.paths.root)
        return bool(self.summary)

    def draw(self) -> Any:
        return block(self.summary, self._pulse, self._full, plain=self._plain)


class LiveView:
    """Shows a sweep until left. live: redraw in place; else a line is logged now and then."""

    def __init__(self, paths: SweepPaths, *, live: bool) -> None:
        self._console = Console(file=sys.stderr)
        self._picture = Picture(paths, self._console)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if live else None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="view", daemon=True)

    def __enter__(self) -> LiveView:
        if self._live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join(timeout=5.0)
        if self._live:
            self._live.stop()

    def _watch(self) -> None:
        said, size = "", self._console.size
        period = _REFRESH_SEC if self._live else _LINE_SEC
        while not self._done.wait(period):
            if not self._picture.look():
                continue
            if self._live:
                if size != self._console.size:  # lines that the terminal folded cannot be counted: begin anew
                    size = self._console.size
                    self._console.control(Control.clear(), Control.home())
                self._live.update(self._picture.draw(), refresh=True)
            elif (text := line(self._picture.summary)) != said:
                log.info(text)
                said = text


def follow_sweep(paths: SweepPaths, *, once: bool, console: Console) -> str:
    """Show the sweep in `paths` on `console` until it ends, or `once`; the state it was left in.

    On a terminal the whole screen is redrawn each second, elsewhere a line is printed every 15 seconds.

    Raises:
        SweepError: there is no sweep.
    """
    picture = Picture(paths, console)
    if not picture.look() and not paths.config.is_file():
        raise SweepError(
            "a sweep's folder holds summary.json", seen=str(paths.root), fix="pass DIR/NAME of `gansweep run`"
        )
    if once and not picture.summary:
        return "running"
    state = str(picture.summary.get("state", "running"))
    if not once and state == "running":
        state = _until_over(picture, console)
    if picture.summary:
        console.print(picture.draw())
    return state


def _until_over(picture: Picture, console: Console) -> str:
    """Redraw until the summary says that the sweep is over, or nobody holds it any more."""
    if not console.is_terminal:
        return _lines_until_over(picture, console)
    with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        while (state := _state(picture)) == "running":
            if picture.summary:
                live.update(picture.draw(), refresh=True)
            time.sleep(_REFRESH_SEC)
    return state


def _lines_until_over(picture: Picture, console: Console) -> str:
    said, told = "", 0.0
    while (state := _state(picture)) == "running":
        text = line(picture.summary) if picture.summary else ""
        if text != said and time.monotonic() - told >= _LINE_SEC:
            console.print(text, markup=False, soft_wrap=True)
            said, told = text, time.monotonic()
        time.sleep(_REFRESH_SEC)
    return state


def _state(picture: Picture) -> str:
    """What the summary says; `dead` where it says running and no process has the sweep."""
    picture.look()
    state = str(picture.summary.get("state", "running"))
    return DEAD if state == "running" and _abandoned(picture.paths) else state


def _abandoned(paths: SweepPaths) -> bool:
    """Whether the files have been silent for a while and nobody holds the lock."""
    try:
        newest = max(path.stat().st_mtime for path in (paths.summary, paths.spool) if path.exists())
        if time.time() - newest < _SILENT_SEC:
            return False
        with paths.lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except (OSError, ValueError):  # held, or a file system without locks
        return False
