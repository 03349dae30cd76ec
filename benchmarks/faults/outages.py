"""A tracking server that is down for a while, and a disk that fills up."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from faults.result import Result, wait_for
from faults.sweeps import COMMAND, START_SEC, Sweep, check_stores
from pipeline.storage.files import read_json

AWAY_SEC = 60.0
SLOWER = 0.05
"""By how much training may slow down while the server is away; holds on an idle machine."""


class Server:
    """A real `mlflow server` on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.uri, self._folder = f"http://127.0.0.1:{self.port}", folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process = subprocess.Popen(
            command, cwd=self._folder, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(self._answers, 120.0, "mlflow server")

    def kill(self) -> None:
        """SIGKILL it and all its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=10)
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=1):
            return True
        return False


def tracker(folder: Path, times: int, rng: random.Random, away_sec: float = AWAY_SEC) -> Result:
    """Kill and restart the server during a sweep: each metric arrives once, training does not slow down."""
    result = Result(f"MLflow server killed, {away_sec:g} s away, back")
    server = Server(folder)
    server.start()
    sweep = Sweep(
        folder / "out", "--trials", "1", "--kimg", "1000000", "--set", "tick_kimg=20",
        "--tracking-uri", server.uri, "--time-budget", f"{times * (away_sec + 25):.0f}s",
        "--concurrency", "1",
    )  # fmt: skip
    sweep.start()
    sweep.wait_for_records(2)
    up, down = [], []
    try:
        for _ in range(times):
            up += _speeds(sweep, rng.uniform(8.0, 12.0))
            server.kill()
            result.injected += 1
            down += _speeds(sweep, away_sec)
            server.start()
            back = sum(1 for _ in sweep.paths.event_log.open("rb"))
            result.times.append(
                wait_for(lambda b=back: _exported(sweep) >= b or sweep.ended, 120.0, "MLflow caught up")
            )
        result.expect(sweep.end() == 0, f"the sweep failed: {sweep.stderr[-300:]}")
        command = [*COMMAND, "sync", str(sweep.paths.root), "--tracking-uri", server.uri]
        synced = subprocess.run(command, capture_output=True, text=True, timeout=300)
        result.expect(synced.returncode == 0, f"sync: {synced.stderr[-300:]}")
        result.notes.append(synced.stdout.strip())
        check_stores(result, sweep, 1, server.uri)
    finally:
        server.kill()
    if up and down:
        ratio = statistics.median(down) / statistics.median(up)
        result.notes.append(f"images/s while away: {ratio:.2f} of before ({len(down)} ticks)")
        result.expect(ratio >= 1 - SLOWER, f"training slowed down to {ratio:.2f}")
    return result


def _speeds(sweep: Sweep, seconds: float) -> list[float]:
    """Images per second of the ticks within the next `seconds`."""
    before = len(sweep.records(0))
    time.sleep(seconds)
    return [record.images_per_sec for record in sweep.records(0)[before:]]


def _exported(sweep: Sweep) -> int:
    return int(read_json(sweep.paths.export_cursor).get("events", 0))


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A tmpfs of so many MiB. Raises OSError if this user may not mount one."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    if done.returncode:
        raise OSError(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, timeout=10)


def fill(disk: Path) -> Path:
    """Fill a disk; returns the file that takes all its space."""
    ballast = disk / "ballast"
    with open(ballast, "ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    return ballast


def full_disk(folder: Path, times: int, rng: random.Random) -> Result:
    """Fill the disk of a running sweep: the search ends; with space again a resume registers the champion."""
    result = Result("the disk fills up")
    for index in range(times):
        try:
            with small_disk(folder / f"disk{index}", 24) as disk:
                _fill_during(
                    result,
                    Sweep(disk / "out", "--trials", "4", "--kimg", "100", "--pruner", "none"),
                    disk,
                    rng,
                )
        except OSError as error:
            result.notes.append(f"skipped: {error}")
            break
    return result


def _fill_during(result: Result, sweep: Sweep, disk: Path, rng: random.Random) -> None:
    sweep.start()
    sweep.wait_for_records(rng.randrange(2, 12))
    ballast = fill(disk)
    result.injected += 1
    code = sweep.end(START_SEC * 2)
    result.expect(code in (0, 1), f"exit code {code}")
    result.expect("the disk is full" in sweep.stderr, "the full disk was not logged")
    _, trace, rest = sweep.stderr.partition("Traceback")
    result.expect(not trace, f"a traceback: {rest[:1500]}")
    ballast.unlink()
    begun = time.monotonic()
    sweep.start()
    result.expect(sweep.end() == 0, f"the resume failed: {sweep.stderr[-300:]}")
    result.times.append(time.monotonic() - begun)
    result.expect(bool(sweep.summary.get("registered")), "no champion was registered")
    check_stores(result, sweep, 4)
