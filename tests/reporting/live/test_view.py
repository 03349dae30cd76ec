"""The live view from the sweep's files alone, in its own terminal and in another one."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.config import SweepPaths
from pipeline.errors import SweepError
from pipeline.reporting.live.drawing import clock, left, line, sparkline
from pipeline.reporting.live.progress import SweepProgress
from pipeline.reporting.live.view import DEAD, LiveView, _abandoned, follow_sweep
from pipeline.storage.files import write_text


def summary(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": "digits",
        "trials": {"complete": 2, "pruned": 3, "failed": 0, "running": 1},
        "trials_asked": 10,
        "time_budget_sec": 0.0,
        "state": "running",
        "best": {"trial": 4, "fid": 12.345, "balance": 0.5, "kimg": 20, "params": {}},
        "leaderboard": [],
        "running": [{"trial": 5, "fid": None, "balance": 0.25, "last_kimg": 10, "verdict": "healthy"}],
        "kimg_total": 120,
        "images_per_sec": 2500.0,
        "wall_seconds": 100.0,
        "disk_bytes": 4_200_000,
    }
    return {**content, **changes}


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.9, "1:01"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ", about 1:40 left"),  # five of ten in 100 s
        ({"time_budget_sec": 130.0}, ", about 0:30 left"),
        ({"time_budget_sec": 90.0}, ", about 0:00 left"),
        ({"trials": {"complete": 0, "pruned": 0, "failed": 0, "running": 2}}, ""),
        ({"trials_asked": 5}, ", about 0:00 left"),
    ],
)
def test_time_left(changes: dict[str, Any], text: str) -> None:
    assert left(summary(**changes)) == text


def test_a_line_says_all() -> None:
    assert line(summary()) == (
        "2 done, 3 pruned, 0 failed, 1 running | 120 kimg | 2.5 kimg/s"
        " | best fid 12.35 (balance 0.50, trial 4) | 1:40, about 1:40 left"
    )
    assert "no fid yet" in line(summary(best=None))
    diverged = {**summary()["best"], "balance": None}
    assert "best fid 12.35 (balance -, trial 4)" in line(summary(best=diverged))
    least = {key: summary()[key] for key in ("name", "state", "wall_seconds", "kimg_total", "trials", "best")}
    assert line(least).endswith("(balance 0.50, trial 4) | 1:40, about 0:00 left")


def events(trial: int, *ticks: tuple[int, float, float], end: str = "") -> list[dict[str, Any]]:
    """What the spool has of a trial: (kimg, fid, balance) per tick."""
    found: list[dict[str, Any]] = [{"event": "start", "trial": trial, "params": {}}]
    for kimg, fid, balance in ticks:
        record = {"kimg": kimg, "fid": fid, "balance": balance, "auc": 0.99, "verdict": "healthy"}
        record |= {"train_seconds": 60.0, "eval_seconds": 3.0}
        found.append({"event": "record", "trial": trial, "record": record})
    return [*found, {"event": "end", "trial": trial, "status": end, "cause": "by asha"}] if end else found


def spool(path: Path, *lines: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in lines)


def drawn(paths: SweepPaths, width: int = 100, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(width=width, file=file)
    follow_sweep(paths, once=True, console=console)
    file.seek(0)
    return file.read()


@pytest.fixture
def sweep(tmp_path: Path) -> SweepPaths:
    paths = SweepPaths(tmp_path)
    write_text(paths.summary, json.dumps(summary(state="running")))
    write_text(paths.config, "[space.fixed]\nkimg = 40\n[space.search]\nlr_g = { float = [0.1, 0.2] }\n")
    spool(
        paths.spool, *events(0, (10, 80.0, 0.5), (20, 40.0, 0.5), end="KILLED"), *events(5, (10, 10.0, 0.01))
    )
    return paths


def test_a_block_tells_the_course_who_runs_who_ended_and_the_cost(sweep: SweepPaths) -> None:
    lines = drawn(sweep).splitlines()
    assert lines[:3] == [
        "digits: running, 1:40, about 1:40 left",
        "2 done, 3 pruned, 0 failed, 1 running | 120 kimg | 2.5 kimg/s",
        "best fid 12.35 (balance 0.50, trial 4)",
    ]
    assert lines[3] == "its course 80 \u2588\u2586\u2581 10"
    assert lines[5].split()[0] == "5"
    assert lines[5].split()[2:] == ["10/40", "10.00", "0.01", "D", "ahead", "healthy"]
    assert lines[6] == "trial 0 pruned with fid 40, healthy: by asha"
    assert lines[7] == "cost so far: 30 kimg, 2:06 of trial time, 4.2 MB on disk"


@pytest.mark.parametrize("width", [20, 40, 60])
def test_a_block_never_wraps(sweep: SweepPaths, width: int) -> None:
    lines = drawn(sweep, width).splitlines()
    assert len(lines) == 8
    assert width < 60 or "10/40" in lines[5]
    assert max(map(len, lines)) <= width


def test_a_terminal_without_unicode_gets_plain_letters(sweep: SweepPaths) -> None:
    text = drawn(sweep, encoding="ascii")
    assert text.isascii()
    assert "80 @*_ 10" in text
    assert "##........" in text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0], "_"),
        ([5.0, 5.0], "__"),
        ([100.0, 10.0, 1.0], "@+_"),
        ([3.0, 0.0], "@_"),
        ([2.0] * 99, "_" * 32),
    ],
)
def test_sparklines(values: list[float], text: str) -> None:
    assert sparkline(values, plain=True) == text


def test_a_sparkline_ends_where_the_values_end() -> None:
    assert sparkline([float(n) for n in range(100, 0, -1)], 10, plain=True)[-1] == "_"


def test_what_is_appended_is_read_on_and_a_torn_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "spool.jsonl"
    pulse = SweepProgress(path)
    pulse.look()
    spool(path, *events(1, (10, 9.0, 0.5)))
    with path.open("a") as file:
        file.write('{"event": "rec')
    pulse.look()
    assert (pulse.bests, [beat.trial for beat in pulse.running]) == ([9.0], [1])
    with path.open("a") as file:
        file.write('ord", "trial": 1, "record": {"kimg": 20, "fid": 7.0}}\n')
    spool(path, {"event": "end", "trial": 1, "status": "FINISHED"})
    pulse.look()
    assert (pulse.bests, pulse.running, pulse.last[0].ended, pulse.kimg) == ([9.0, 7.0], [], "complete", 20)


def test_watching_ends_when_the_sweep_ends(sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reporting.live.view._REFRESH_SEC", 0.01)
    monkeypatch.setattr("pipeline.reporting.live.view._LINE_SEC", 0.0)
    console = Console(width=150, file=io.StringIO())
    threading.Timer(0.2, lambda: write_text(sweep.summary, json.dumps(summary(state="finished")))).start()
    assert follow_sweep(sweep, once=False, console=console) == "finished"
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.startswith("2 done")
    assert "digits: finished" in text


def test_a_terminal_is_redrawn_as_a_whole_and_keeps_the_last_picture(
    sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.reporting.live.view._REFRESH_SEC", 0.01)
    console = Console(width=80, height=24, file=io.StringIO(), force_terminal=True)
    threading.Timer(0.2, lambda: write_text(sweep.summary, json.dumps(summary(state="finished")))).start()
    assert follow_sweep(sweep, once=False, console=console) == "finished"
    text = console.file.getvalue()  # type: ignore[attr-defined]
    inside, after = text.split("\x1b[?1049l")  # the second screen of a terminal, and the first one again
    assert "\x1b[?1049h" in inside
    assert "digits: running" in inside
    assert "digits: finished" in after


def test_the_view_of_a_run_redraws_in_place_and_vanishes(
    sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.reporting.live.view._REFRESH_SEC", 0.01)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setenv("FORCE_COLOR", "1")
    with LiveView(sweep, live=True, say=lambda text: pytest.fail(text)) as shown:
        drawn_ = shown._console.file
        deadline = time.monotonic() + 20
        while drawn_.getvalue().count("digits: running") < 3 and time.monotonic() < deadline:  # type: ignore[attr-defined]
            time.sleep(0.02)
    text = drawn_.getvalue()  # type: ignore[attr-defined]
    assert text.count("digits: running") >= 3
    assert "\x1b[1A\x1b[2K" in text, "each picture takes the place of the one before"


def test_a_sweep_whose_process_is_gone_is_not_watched_for_ever(
    sweep: SweepPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.reporting.live.view._REFRESH_SEC", 0.01)
    for path in (sweep.summary, sweep.spool):
        os.utime(path, (1, 1))
    with sweep.lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not _abandoned(sweep), "silent for long, but somebody works on it"
    assert follow_sweep(sweep, once=False, console=Console(file=io.StringIO())) == DEAD


def test_the_command(sweep: SweepPaths, tmp_path: Path) -> None:
    invoke = CliRunner().invoke
    assert "its course 80 " in invoke(app, ["watch", "--once", str(sweep.root)]).stdout
    assert isinstance(invoke(app, ["watch", str(tmp_path / "nothing")]).exception, SweepError)
    write_text(sweep.summary, json.dumps(summary(state="failed")))
    assert invoke(app, ["watch", str(sweep.root)]).exit_code == 1


def test_a_view_says_each_state_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reporting.live.view._LINE_SEC", 0.01)
    paths, said = SweepPaths(tmp_path), []
    with LiveView(paths, live=False, say=said.append):
        for kimg in (1, 2):
            write_text(paths.summary, json.dumps(summary(kimg_total=kimg)))
            deadline = time.monotonic() + 20
            while len(said) < kimg and time.monotonic() < deadline:
                time.sleep(0.02)
        time.sleep(0.1)  # what is said twice would be said now
    assert [text.split(" | ")[1] for text in said] == ["1 kimg", "2 kimg"]


BENEATH = """
import sys, time
from pathlib import Path
from pipeline.cli.clusters import live
from pipeline.config import SweepPaths
with live(SweepPaths(Path(sys.argv[1]))):
    time.sleep(1.5)
    sys.stderr.write("a line of the job's log\\n")
    time.sleep(1.2)
"""


@pytest.mark.parametrize("terminal", [True, False])
def test_a_jobs_log_has_the_live_view_beneath_it_on_a_terminal(sweep: SweepPaths, terminal: bool) -> None:
    ours, theirs = pty.openpty() if terminal else os.pipe()
    command = [sys.executable, "-c", BENEATH, str(sweep.root)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # a terminal whose other end is closed
            while some := os.read(ours, 65_536):
                said += some
    os.close(ours)
    assert process.returncode == 0
    assert said.count(b"a line of the job's log") == 1
    assert (b"digits: running" in said) is terminal
