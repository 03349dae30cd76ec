"""The live view of a sweep from its files alone, in its own terminal and in another one."""

from __future__ import annotations

import fcntl
import io
import os
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console
from sweep_folders import write_running_sweep, write_summary

from pipeline.config import SweepPaths
from pipeline.errors import SweepError
from pipeline.reporting.live.view import DEAD, LiveView, _abandoned, follow_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> SweepPaths:
    return write_running_sweep(tmp_path)


def finish_soon(sweep: SweepPaths) -> None:
    threading.Timer(0.2, lambda: write_summary(sweep, state="finished")).start()


def written(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_watching_ends_when_the_sweep_ends(sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reporting.live.view._REFRESH_SEC", 0.01)
    monkeypatch.setattr("pipeline.reporting.live.view._LINE_SEC", 0.0)
    console = Console(width=150, file=io.StringIO())
    finish_soon(sweep)
    assert follow_sweep(sweep, once=False, console=console) == "finished"
    text = written(console)
    assert text.startswith("2 done")
    assert "digits: finished" in text


def test_a_terminal_shows_the_sweep_on_its_second_screen_and_keeps_the_last_block(
    sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.reporting.live.view._REFRESH_SEC", 0.01)
    console = Console(width=80, height=24, file=io.StringIO(), force_terminal=True)
    finish_soon(sweep)
    assert follow_sweep(sweep, once=False, console=console) == "finished"
    text = written(console)
    inside, after = text.split("\x1b[?1049l")  # the terminal leaves its second screen
    assert "\x1b[?1049h" in inside
    assert "digits: running" in inside
    assert "digits: finished" in after


def test_the_view_of_a_run_redraws_in_place(
    sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline.reporting.live.view")
    monkeypatch.setattr("pipeline.reporting.live.view._REFRESH_SEC", 0.01)
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with LiveView(sweep, live=True):
        deadline = time.monotonic() + 20
        while screen.getvalue().count("digits: running") < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
    text = screen.getvalue()
    assert caplog.messages == []
    assert text.count("digits: running") >= 3
    assert "\x1b[1A\x1b[2K" in text, "each block replaces the one before"


def test_a_sweep_whose_process_is_gone_is_reported_dead(
    sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.reporting.live.view._REFRESH_SEC", 0.01)
    for path in (sweep.summary, sweep.event_log):
        os.utime(path, (1, 1))
    with sweep.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not _abandoned(sweep), "no change for long, but the lock is held"
    assert follow_sweep(sweep, once=False, console=Console(file=io.StringIO())) == DEAD


def test_each_line_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.reporting.live.view._LINE_SEC", 0.01)
    caplog.set_level("INFO", "pipeline.reporting.live.view")
    paths = SweepPaths(tmp_path)
    with LiveView(paths, live=False):
        for kimg in (1, 2):
            write_summary(paths, kimg_total=kimg)
            deadline = time.monotonic() + 20
            while len(caplog.messages) < kimg and time.monotonic() < deadline:
                time.sleep(0.02)
        time.sleep(0.1)  # a repeated line would be logged now
    assert [text.split(" | ")[1] for text in caplog.messages] == ["1 kimg", "2 kimg"]


def test_a_folder_without_a_sweep_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"no sweep in .*holds a summary\.json"):
        follow_sweep(SweepPaths(tmp_path / "nothing"), once=True, console=Console(file=io.StringIO()))
