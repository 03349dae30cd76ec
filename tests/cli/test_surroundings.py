"""The command in the surroundings that a shell, a job system or a container may give it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_folders import write_running_sweep

COMMAND = f"{Path(sys.executable).parent}/gansweep"
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def shell(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `$G` is the command; the exit code is its own, not that of a reader."""
    return subprocess.run(
        ["bash", "-c", f"{script}; exit ${{PIPESTATUS[0]}}"],
        cwd=folder,
        env={**os.environ, "G": COMMAND, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_running_sweep(tmp_path_factory.mktemp("sweeps") / "digits").root


@pytest.mark.parametrize("arguments", ["evaluate --help", "watch --once .", "report ."])
def test_a_reader_that_leaves_is_no_failure(sweep: Path, arguments: str) -> None:
    done = shell(f"$G {arguments} | true", sweep)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_from_the_beginning(tmp_path: Path, closed: str) -> None:
    done = shell(f"$G validate smoke {closed}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("smoke: ok") or ">&-" in closed.replace("2>&-", "")
    assert shell(f"$G validate nothing {closed}", tmp_path).returncode == 2


def test_watching_ends_when_nobody_looks(sweep: Path) -> None:
    """The sweep says running, and was written just now."""
    assert shell("$G watch . | true", sweep).returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_result_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    done = shell("$G validate smoke > /dev/full", tmp_path)
    assert done.returncode == 120
    assert done.stderr == "failed: stdout cannot be written: No space left on device\n"
    assert shell("$G validate smoke 2> /dev/full", tmp_path).returncode == 0


@pytest.mark.parametrize("encoding", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, ASCII])
def test_letters_that_the_terminal_lacks(tmp_path: Path, encoding: dict[str, str]) -> None:
    (tmp_path / "日本.toml").write_text("[search]\nlr_g = { float = [1e-4, 1e-2] }\n", encoding="utf-8")
    done = shell("$G validate 日本.toml", tmp_path, **encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(r"\u65e5\u672c.toml: ok")
    assert shell("$G run --help", tmp_path, **encoding).returncode == 0


def test_a_name_of_any_letters_is_one_line_in_an_ascii_locale(tmp_path: Path) -> None:
    done = shell("$G validate Éclair.toml", tmp_path, **ASCII)
    assert done.returncode == 2
    assert done.stderr.startswith(r"error: there is no space \xc9clair.toml")


@pytest.mark.parametrize(
    "environment",
    [
        {"COLUMNS": "20"},
        {"TERM": ""},
        {"TZ": "Nowhere/Else"},
        {"PYTHONOPTIMIZE": "1"},
        {"PYTHONDONTWRITEBYTECODE": "1"},
        {"PYTHONSAFEPATH": "1", "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"},
        {"HOME": ""},
        {"HOME": "/dev/null"},
        {"RAY_ADDRESS": "10.255.255.1:6379", "RAY_CLIENT_MODE": "1"},
        {"http_proxy": "http://10.255.255.1:9", "ALL_PROXY": "socks5://10.255.255.1:9"},
    ],
    ids=str,
)
def test_what_a_shell_may_have_set(tmp_path: Path, environment: dict[str, str]) -> None:
    done = shell("$G validate smoke", tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("smoke: ok")


def test_a_terminal_of_no_width_shows_help(tmp_path: Path) -> None:
    assert "--data" in shell("$G run --help", tmp_path, COLUMNS="0", TERM="dumb").stdout


def test_a_current_folder_that_has_gone_is_one_line(tmp_path: Path) -> None:
    done = shell("mkdir gone; cd gone; rmdir ../gone; $G validate smoke", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the current folder has gone: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_cache_that_cannot_be_written_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    run = "$G run --space smoke --data digits --dry-run --extractor pixels --second-extractor none"
    done = shell(run, tmp_path, GANSWEEP_CACHE="/dev/null")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: GANSWEEP_CACHE=/dev/null cannot be written; ")
    assert list(tmp_path.iterdir()) == []
