"""SIGKILL of the driver, of workers, and of a machine."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from faults.result import Result, wait_for
from faults.sweeps import START_SEC, Sweep, champion, check_stores

_SLOW_EXTRACTOR = '''"""Pixels, slowly; a marker file exists while a measurement is under way."""

import pathlib
import time


def build(size, channels):
    marker = pathlib.Path({marker!r})

    def features(images):
        marker.touch()
        time.sleep(0.1)
        marker.unlink(missing_ok=True)
        return images.flatten(1)[:, ::4].float()

    return features
'''
_SPACE = """
[fixed]
architecture = "mlp"
width_g = 512
width_d = 512
kimg = 60
tick_kimg = 2
[search]
lr_g = { float = [1e-4, 1e-3] }
"""


def driver(folder: Path, times: int, rng: random.Random) -> Result:
    """Kill the driver of a sequential sweep at random moments, resume it, and compare it with another one."""
    result = Result("SIGKILL of the driver, then the same command")
    trials = 3 + times // 4
    flags = ("--trials", str(trials), "--kimg", "150", "--concurrency", "1", "--final-seeds", "0")
    reference, killed = Sweep(folder / "reference", *flags), Sweep(folder / "killed", *flags)
    reference.start()
    result.expect(reference.end() == 0, "the reference sweep failed")
    while result.injected < times:
        killed.start()
        if rng.random() < 0.2:  # before or while Ray starts
            time.sleep(rng.uniform(0.5, 8.0))
        else:
            seconds = _until_next_event(killed)
            result.times += [seconds] if result.injected else []
            killed.wait_for_records(rng.randrange(8))
            time.sleep(rng.uniform(0.0, 0.3))
        if killed.ended:
            result.notes.append(f"ended after {result.injected} kills")
            break
        killed.kill()
        result.injected += 1
    killed.start()
    result.expect(killed.end() == 0, "the last resume failed")
    check_stores(result, killed, trials)
    result.expect(
        killed.records_without_times() == reference.records_without_times(),
        "other records than the reference",
    )
    result.expect(champion(killed) == champion(reference), "another champion than the reference")
    return result


def _until_next_event(sweep: Sweep) -> float:
    """Wait until the driver logs a record; a resume logs sweep.toml as an artifact before that."""
    before = sweep.event_count() + 1
    return wait_for(lambda: sweep.ended or sweep.event_count() > before, START_SEC, "recovery")


def worker(folder: Path, times: int, rng: random.Random) -> Result:
    """Kill workers mid-step, mid-checkpoint and mid-evaluation; two per trial, as many as are retried."""
    result = Result("SIGKILL of a worker: step, checkpoint, evaluation")
    trials, marker = -(-times // 2), folder / "measuring"
    (folder / "space.toml").write_text(_SPACE)
    (folder / "slow.py").write_text(_SLOW_EXTRACTOR.format(marker=str(marker)))
    flags = ("--trials", str(trials), "--pruner", "none", "--concurrency", "1", "--extractor", "slow:build")
    sweep = Sweep(folder / "out", *flags, space=str(folder / "space.toml"), name="w")
    sweep.start()
    torn = 0
    for index in range(times):
        number = index // 2
        _until(sweep, number, 2 + 3 * (index % 2))
        pid = sweep.worker()
        _await_moment(sweep, number, ("step", "checkpoint", "evaluation")[index % 3], marker, rng)
        before = len(sweep.records(number))
        if pid is None or sweep.ended:
            result.broken.append(f"no worker is left: {sweep.stderr[-300:]}")
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        marker.unlink(missing_ok=True)
        result.injected += 1
        time.sleep(0.05)
        torn += any(path.name.startswith(".") for path in sweep.paths.trial(number).iterdir())
        result.times.append(_until(sweep, number, before + 1))
    result.notes.append(f"{torn} left a file half written")
    result.expect(sweep.end() == 0, f"the sweep failed: {sweep.stderr[-300:]}")
    check_stores(result, sweep, trials)
    result.expect(sweep.summary["trials"]["complete"] == trials, "a trial did not end normally")
    for number in range(trials):
        ticks = [record.kimg for record in sweep.records(number)]
        result.expect(ticks == list(range(2, 61, 2)), f"trial {number} has other ticks")
    return result


def _until(sweep: Sweep, number: int, count: int) -> float:
    """Wait until a trial has more than `count` records, or its sweep is over; returns the seconds."""
    return wait_for(lambda: sweep.ended or len(sweep.records(number)) > count, START_SEC, f"trial {number}")


def _until_moved(sweep: Sweep) -> float:
    """Wait until the trial whose machine died continues on the other one, once that has room."""

    def lost() -> int | None:
        return next((number for number in (0, 1) if "worker killed" in sweep.failures(number)), None)

    seconds = wait_for(lambda: sweep.ended or lost() is not None, START_SEC, "the loss is recorded")
    number = lost()
    return seconds if number is None else seconds + _until(sweep, number, len(sweep.records(number)))


def _await_moment(sweep: Sweep, number: int, moment: str, marker: Path, rng: random.Random) -> None:
    """Return during a checkpoint or a measurement, or at a random moment of a tick."""
    deadline = time.monotonic() + 20.0
    folder = sweep.paths.trial(number)
    while time.monotonic() < deadline and not sweep.ended:
        if moment == "step":
            time.sleep(rng.uniform(0.0, 0.2))
            if not marker.exists():
                return
        elif moment == "checkpoint":
            if any("state" in path.name and path.name.startswith(".") for path in folder.iterdir()):
                return
        elif marker.exists():
            return


_CLUSTER = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.startswith("kill"):
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("killed", flush=True)
    else:
        break
cluster.shutdown()
"""


@contextlib.contextmanager
def _cluster() -> Iterator[subprocess.Popen[str]]:
    """A head without cores and two machines with one each, on this one; a line `kill` takes one away."""
    process = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(BrokenPipeError, subprocess.TimeoutExpired):
            process.communicate("end\n", timeout=60)
        process.kill()


def node(folder: Path, times: int, rng: random.Random) -> Result:
    """Kill one of two machines with one trial each: its trial continues on the other one."""
    result = Result("a machine of a Ray cluster dies")
    for index in range(times):
        with _cluster() as cluster:
            assert cluster.stdin is not None
            assert cluster.stdout is not None
            address = cluster.stdout.readline().strip()
            flags = ("--trials", "3", "--kimg", "100", "--pruner", "none", "--concurrency", "2")
            sweep = Sweep(folder / str(index), *flags, "--address", address)
            sweep.start()
            _until(sweep, 0, 1)
            _until(sweep, 1, 1)
            time.sleep(rng.uniform(0.0, 1.0))
            cluster.stdin.write("kill\n")
            cluster.stdin.flush()
            result.injected += 1
            result.times.append(_until_moved(sweep))
            result.expect(sweep.end() == 0, f"the sweep failed: {sweep.stderr[-300:]}")
        check_stores(result, sweep, 3)
        result.expect(sweep.summary["trials"]["complete"] == 3, "a trial did not end normally")
        moved = sum("worker killed" in sweep.failures(number) for number in (0, 1))
        result.expect(moved >= 1, "no trial has recorded the loss of its machine")
    return result
