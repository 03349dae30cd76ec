"""The live view of a sweep: a block that is redrawn in place, or plain lines.

`LiveView` shows a sweep in its own terminal, `follow_sweep` in another one. Both only read the sweep's files:
the search may run on another machine.
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time

from rich.console import Console, Group
from rich.control import Control
from rich.live import Live

from pipeline.config import SweepPaths
from pipeline.reporting.history import full_kimg, read_space
from pipeline.reporting.live.drawing import render_block, render_line
from pipeline.reporting.live.progress import SweepProgress
from pipeline.reporting.streams import lasting_stderr, reader_left
from pipeline.storage.summary_file import no_sweep, read_summary

log = logging.getLogger(__name__)

DEAD = "dead"
"""The state that `follow_sweep` returns if the sweep's process is gone and its summary still says running."""

_REFRESH_SEC = 1.0
_LINE_SEC = 15.0
_SILENT_SEC = 30.0  # if the files are older than this, the lock shows whether a process still runs the sweep


class SweepSnapshot:
    """The state of a sweep at the last `refresh`; `summary` is None before there is one."""

    def __init__(self, paths: SweepPaths, console: Console) -> None:
        self.paths, self.summary = paths, read_summary(paths.summary)
        self._progress = SweepProgress(paths.event_log)
        self._plain = not console.encoding.lower().startswith("utf")
        self._full_kimg: int | None = None

    def refresh(self) -> bool:
        """Read the files again; False if there is no summary yet."""
        self.summary = read_summary(self.paths.summary) or self.summary
        self._progress.update()
        if self._full_kimg is None:
            self._full_kimg = full_kimg(read_space(self.paths.root))
        return self.summary is not None

    @property
    def state(self) -> str:
        """As in the summary; a sweep without one runs."""
        return self.summary.state if self.summary else "running"

    def line(self) -> str:
        """The state in one line; empty without a summary."""
        return render_line(self.summary) if self.summary else ""

    def render(self) -> Group:
        """The block for a terminal; empty without a summary."""
        if self.summary is None:
            return Group()
        return render_block(self.summary, self._progress, self._full_kimg, plain=self._plain)


class LiveView:
    """A context manager that shows a sweep on stderr, from a thread.

    live: redraw a block each second; else log a line at level INFO every 15 seconds if it has changed.
    """

    def __init__(self, paths: SweepPaths, *, live: bool) -> None:
        self._console = Console(file=lasting_stderr())
        self._snapshot = SweepSnapshot(paths, self._console)
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
        logged, size = "", self._console.size
        period = _REFRESH_SEC if self._live else _LINE_SEC
        while not self._done.wait(period):
            if not self._snapshot.refresh():
                continue
            if self._live:
                if size != self._console.size:  # the terminal has wrapped the old block: clear all of it
                    size = self._console.size
                    self._console.control(Control.clear(), Control.home())
                self._live.update(self._snapshot.render(), refresh=True)
            elif (text := self._snapshot.line()) != logged:
                log.info(text)
                logged = text


def follow_sweep(paths: SweepPaths, *, once: bool, console: Console) -> str:
    """Show the sweep in `paths` on `console` until it ends, or `once`; returns its state there, or `DEAD`.

    On a terminal the screen is redrawn each second; elsewhere a line is printed at most every 15 seconds.
    Where nobody reads the console any more, it returns.

    Raises:
        SweepError: there is no sweep in `paths`.
    """
    snapshot = SweepSnapshot(paths, console)
    if not snapshot.refresh() and not paths.config.is_file():
        raise no_sweep(paths.root)
    state = snapshot.state
    if not once and state == "running":
        state = _until_over(snapshot, console)
    if snapshot.summary:
        console.print(snapshot.render())
    return state


def _until_over(snapshot: SweepSnapshot, console: Console) -> str:
    """Redraw until the sweep is over or its process is gone; return its state."""
    if not console.is_terminal:
        return _lines_until_over(snapshot, console)
    with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        while (state := _state(snapshot)) == "running" and not reader_left(console.file):
            if snapshot.summary:
                live.update(snapshot.render(), refresh=True)
            time.sleep(_REFRESH_SEC)
    return state


def _lines_until_over(snapshot: SweepSnapshot, console: Console) -> str:
    printed, printed_at = "", 0.0
    while (state := _state(snapshot)) == "running" and not reader_left(console.file):
        text = snapshot.line()
        if text != printed and time.monotonic() - printed_at >= _LINE_SEC:
            console.print(text, markup=False, soft_wrap=True)
            printed, printed_at = text, time.monotonic()
        time.sleep(_REFRESH_SEC)
    return state


def _state(snapshot: SweepSnapshot) -> str:
    """The state in the summary; `DEAD` if it says running but no process runs the sweep."""
    snapshot.refresh()
    abandoned = snapshot.state == "running" and _abandoned(snapshot.paths)
    return DEAD if abandoned else snapshot.state


def _abandoned(paths: SweepPaths) -> bool:
    """Whether the files have not changed for a while and no process holds the sweep's lock."""
    try:
        newest = max(path.stat().st_mtime for path in (paths.summary, paths.event_log) if path.exists())
        if time.time() - newest < _SILENT_SEC:
            return False
        with paths.lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except (OSError, ValueError):  # the lock is held, or the file system has no locks
        return False
