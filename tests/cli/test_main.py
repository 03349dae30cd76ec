"""The command's contract for wrong input: one line, exit 2, nothing left behind."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.__main__ import command
from pipeline.cli import options
from pipeline.cli.main import main
from pipeline.errors import ConfigError


def gansweep(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """Run the command in this process; returns its exit code and what it said on stderr."""
    monkeypatch.setattr(sys, "argv", ["gansweep", *arguments])
    try:
        main()
    except SystemExit as done:
        return int(done.code or 0), capsys.readouterr().err
    return 0, capsys.readouterr().err


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


SPACES = {
    "unknown key": ("[search]\nlr_q = { float = [1e-4, 1e-2] }", "did you mean 'lr_g'"),
    "reversed": ("[search]\nlr_g = { float = [1e-2, 1e-4] }", "below"),
    "absent when": (
        '[search]\ngamma = { float = [0.1, 1.0], when = { penalty = ["r1"] } }',
        "names a parameter of this space",
    ),
    "empty": ("", "at least one parameter"),
    "not toml": ("[search", "valid TOML"),
    "out of bounds": ("[search]\nlr_g = { float = [1e-4, 5.0] }", "lies in"),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_wrong_space(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected = SPACES[name]
    (tmp_path / "space.toml").write_text(text)
    code, said = gansweep(capsys, monkeypatch, "validate", str(tmp_path / "space.toml"))
    assert code == 2
    assert expected in said
    assert len(said.strip().splitlines()) == 1
    out = tmp_path / "runs"
    code, _ = gansweep(capsys, monkeypatch, "run", "--space", str(tmp_path / "space.toml"), "--out", str(out))
    assert code == 2
    assert not out.exists()


def wrong_runs(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "one" / "a.png")
    np.savez(tmp_path / "plain.npz", images=np.random.default_rng(0).integers(0, 255, (100, 8, 8), np.uint8))
    conditional = tmp_path / "conditional.toml"
    conditional.write_text("[search]\nconditional = { choice = [true, false] }\n")
    return {
        "empty folder": (["--data", f"folder:{tmp_path}/empty"], "64 images"),
        "one image": (["--data", f"folder:{tmp_path}/one"], "64 images"),
        "unknown source": (["--data", "mnist5"], "mnist5k"),
        "labels of unlabelled": (
            ["--data", f"npz:{tmp_path}/plain.npz", "--extractor", "pixels", "--space", str(conditional)],
            "labelled",
        ),
        "no server": (["--data", "digits", "--tracking-uri", f"http://127.0.0.1:{closed_port()}"], "answers"),
        "unknown set": (["--set", "lr_x=1"], "did you mean"),
        "bad budget": (["--time-budget", "soon"], "10m"),
        "unknown sampler": (["--sampler", "grid"], "tpe"),
        "bad name": (["--name", "../x"], "name"),
        "unknown flag": (["--trails", "3"], "--trials"),
    }


def test_wrong_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for case, (flags, expected) in wrong_runs(tmp_path).items():
        out = tmp_path / "runs"
        space = [] if "--space" in flags else ["--space", "smoke"]
        code, said = gansweep(capsys, monkeypatch, "run", *space, "--out", str(out), *flags)
        last = said.strip().splitlines()[-1]
        assert code == 2, (case, said)
        assert expected in last, (case, said)
        assert last.startswith("error: "), (case, said)
        assert not out.exists(), case


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 0), ("90s", 90), ("10m", 600), ("8h", 28800), ("2d", 172800), ("5", 5)]
)
def test_time_budgets(text: str, seconds: float) -> None:
    assert options.seconds(text) == seconds


@pytest.mark.parametrize("text", ["soon", "-3m", "0m", "1w"])
def test_wrong_time_budgets(text: str) -> None:
    with pytest.raises(ConfigError, match="10m"):
        options.seconds(text)


def test_settings_are_read_as_toml() -> None:
    assert options.settings(["lr_g=1e-4", "loss=hinge", "conditional=true", 'norm_d="none"']) == {
        "lr_g": 1e-4,
        "loss": "hinge",
        "conditional": True,
        "norm_d": "none",
    }


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "resume",
        "report",
        "validate",
        "doctor",
        "register",
        "evaluate",
        "sample",
        "interpolate",
        "export",
        "serve",
        "rm",
        "sync",
        "rerun",
    ],
)
def test_help_teaches(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = gansweep(capsys, monkeypatch, command, "--help")
    assert code == 0
    assert said == ""


def test_an_exit_code_reaches_the_shell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cli.doctor.diagnose.worst_level", lambda findings: "bad")
    assert gansweep(capsys, monkeypatch, "doctor")[0] == 1


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", "--space", "smoke", "--data", "digits", "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert "tpe + asha" in done.stdout
    assert "per trial at most, on cores" in done.stdout
    assert list(tmp_path.iterdir()) == []


_ENDS = """
import atexit, ctypes, sys, types
from pipeline import __main__, cli

def main():
    atexit.register(print, "farewell")
    libc = ctypes.CDLL(None)
    libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)
    print("done")
    exec(sys.argv[2])

cli.main = main
if sys.argv[1] == "ray":
    sys.modules["ray"] = types.ModuleType("ray")
__main__.command()
"""


@pytest.mark.parametrize(
    ("loaded", "end", "code"),
    [
        ("ray", "sys.exit(3)", 3),
        ("ray", "sys.exit()", 0),
        ("ray", "sys.exit('why')", 1),
        ("ray", "raise ValueError", 1),
        ("none", "sys.exit(3)", -signal.SIGABRT),
    ],
)
def test_the_exit_code_outlives_what_kills_a_process_at_its_end(loaded: str, end: str, code: int) -> None:
    """As Ray's thread does now and then; here the C library aborts."""
    called = [sys.executable, "-c", _ENDS, loaded, end]
    ended = subprocess.run(called, capture_output=True, text=True, timeout=60)
    assert ended.returncode == code
    assert ended.stdout.split() == ["done", "farewell"]


def test_what_cannot_be_written_is_no_success() -> None:
    with Path("/dev/full").open("w") as full:
        called = [sys.executable, "-c", _ENDS, "ray", "sys.exit(0)"]
        late = {**os.environ, "PYTHONUNBUFFERED": ""}
        ended = subprocess.run(called, stdout=full, stderr=subprocess.DEVNULL, env=late, timeout=60)
    assert ended.returncode == 120


def test_the_command_is_the_one_that_minds_its_end() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="gansweep")
    assert script.load() is command
