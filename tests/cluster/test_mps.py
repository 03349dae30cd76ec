"""Starting, joining and stopping the MPS daemon, with a script instead of NVIDIA's program: needs no GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pretended_mps import Machine

from pipeline.cluster import mps
from pipeline.cluster.socket_folder import mps_folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    short = Path(tempfile.mkdtemp(prefix="mps-", dir="/tmp"))  # the paths of sockets are
    made = Machine(short)
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/bin:/bin")
    monkeypatch.setenv("TMPDIR", str(made.temporary))
    monkeypatch.setattr(mps, "_DEFAULT", tmp_path / "nvidia-mps")
    for name in (mps.PIPE, mps.LOG):
        monkeypatch.setenv(name, "")  # so that what `start` sets is undone
        monkeypatch.delenv(name)
    yield made
    made.end()
    shutil.rmtree(short)


def test_a_daemon_is_started_once_and_this_process_joins_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv(mps.PERCENTAGE, "25")  # the limit of this process is not the daemon's
    assert (mps.state(), mps.start(), mps.start(), mps.state()) == ("found", "", "", "runs")
    assert machine.started == [f"-d visible=unset percent=unset log={machine.daemon_folder}"]
    assert os.environ[mps.PIPE] == os.environ[mps.LOG] == str(machine.daemon_folder)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    assert machine.daemon_folder.stat().st_mode & 0o777 == 0o700


def test_eight_processes_start_one_daemon(machine: Machine) -> None:
    code = f"from pipeline.cluster import mps; print(mps.start() or mps.os.environ['{mps.PIPE}'])"
    environment = {**os.environ, "TMPDIR": str(machine.temporary)}
    trials = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    assert {trial.communicate()[0].strip() for trial in trials} == {str(machine.daemon_folder)}
    assert len(machine.started) == 1


def test_a_daemon_with_clients_is_not_stopped(machine: Machine) -> None:
    mps.start()
    clients = machine.daemon_folder / "clients"
    clients.write_text("1234\n")
    assert not mps.stop(patience_sec=0.3)
    assert "quit" not in machine.commands
    threading.Timer(0.4, clients.unlink).start()
    assert mps.stop()
    assert machine.commands.count("quit") == 1
    assert mps.PIPE not in os.environ
    assert mps.LOG not in os.environ
    assert (mps.stop(), mps.state()) == (False, "found")


def test_a_daemon_that_died_is_started_again(machine: Machine) -> None:
    mps.start()
    subprocess.run(["kill", (machine.daemon_folder / "pid").read_text().strip()], check=True)
    assert not mps.stop(), "there is nothing to end"
    (machine.daemon_folder / "control").unlink()
    assert mps.start() == ""
    assert len(machine.started) == 2


@pytest.mark.parametrize("by_variable", [True, False])
def test_another_users_daemon_is_used_and_never_stopped(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    folder = tmp_path / ("theirs" if by_variable else "nvidia-mps")
    machine.serve(folder)
    if by_variable:
        monkeypatch.setenv(mps.PIPE, str(folder))
    assert (mps.state(), mps.start()) == ("runs", "")
    assert os.environ.get(mps.PIPE) == (str(folder) if by_variable else None)
    assert not mps.stop()
    assert machine.started == []
    assert "quit" not in machine.commands


def test_a_variable_without_a_daemon_behind_it_is_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mps.PIPE, "/none")
    assert mps.start() == "no MPS daemon answers at CUDA_MPS_PIPE_DIRECTORY=/none"
    assert (mps.state(), machine.started) == ("missing", [])


def test_without_the_program_start_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setattr(mps, "_PROGRAM_FOLDERS", ())
    assert mps.start() == "nvidia-cuda-mps-control is not on this machine"
    assert (mps.state(), mps.stop()) == ("missing", False)
    assert mps.PIPE not in os.environ


def test_the_program_is_found_where_drivers_are_mounted(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "/usr/local/nvidia/bin" in mps._PROGRAM_FOLDERS
    monkeypatch.setenv("PATH", "/none")
    monkeypatch.setattr(mps, "_PROGRAM_FOLDERS", ("/other", str(machine.bin)))
    assert mps.find_program() == str(machine.bin / "nvidia-cuda-mps-control")


def test_a_daemon_that_fails_to_start_gives_its_first_line(machine: Machine) -> None:
    (machine.bin / "broken").touch()
    assert mps.start() == "nvidia-cuda-mps-control does not start: no device"
    assert mps.PIPE not in os.environ


def test_a_folder_of_another_user_is_not_used(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.daemon_folder.mkdir()
    mine = os.getuid()
    monkeypatch.setattr(mps.os, "getuid", lambda: mine + 1)
    machine.daemon_folder.rename(mps_folder())
    assert "belongs to another user" in mps.start()
    assert machine.started == []


@pytest.mark.parametrize(
    ("trials", "percent"),
    [(0, 100), (1, 100), (2, 100), (3, 66), (8, 25), (16, 12), (300, 1)],
)
def test_each_of_many_trials_may_use_twice_its_part(trials: int, percent: int) -> None:
    assert mps.percentage(trials) == percent
