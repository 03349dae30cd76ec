"""The command's contract: help, exit codes, and wrong input as one line with nothing left behind."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from pipeline.cli.doctor.finding import Finding, Level
from pipeline.cli.main import app, main

COMMANDS = typer.main.get_group(app).commands


def gansweep(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """Run the command in this process; returns its exit code and what it printed on stderr."""
    code, _, error = outputs(capsys, monkeypatch, *arguments)
    return code, error


def outputs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["gansweep", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0), *capsys.readouterr()


SPACES = {
    "unknown key": ("[search]\nlr_q = { float = [1e-4, 1e-2] }", "did you mean 'lr_g'"),
    "reversed": ("[search]\nlr_g = { float = [1e-2, 1e-4] }", "below"),
    "absent when": (
        '[search]\ngamma = { float = [0.1, 1.0], when = { penalty = ["r1"] } }',
        "names no parameter of this space",
    ),
    "empty": ("", "no parameter is searched"),
    "not toml": ("[search", "valid TOML"),
    "out of bounds": ("[search]\nlr_g = { float = [1e-4, 5.0] }", "lies in"),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_wrong_space_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected = SPACES[name]
    (tmp_path / "space.toml").write_text(text)
    code, error = gansweep(capsys, monkeypatch, "validate", str(tmp_path / "space.toml"))
    assert code == 2
    assert expected in error
    assert len(error.strip().splitlines()) == 1
    out = tmp_path / "runs"
    code, _ = gansweep(capsys, monkeypatch, "run", "--space", str(tmp_path / "space.toml"), "--out", str(out))
    assert code == 2
    assert not out.exists()


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, str]:
    """Values of {names} in the arguments below: a folder of wrong inputs, a port on which nothing listens."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "one" / "a.png")
    np.savez(tmp_path / "plain.npz", images=np.random.default_rng(0).integers(0, 255, (100, 8, 8), np.uint8))
    (tmp_path / "conditional.toml").write_text("[search]\nconditional = { choice = [true, false] }\n")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return {"tmp": str(tmp_path), "port": str(closed.getsockname()[1])}


WRONG_RUNS = {
    "empty folder": ("--data folder:{tmp}/empty", "64 images"),
    "one image": ("--data folder:{tmp}/one", "64 images"),
    "unknown source": ("--data mnist5", "mnist5k"),
    "labels of unlabelled": (
        "--data npz:{tmp}/plain.npz --extractor pixels --space {tmp}/conditional.toml",
        "labelled",
    ),
    "no server": ("--data digits --tracking-uri http://127.0.0.1:{port}", "127.0.0.1:{port}"),
    "unknown set": ("--set lr_x=1", "did you mean"),
    "bad budget": ("--time-budget soon", "10m"),
    "unknown sampler": ("--sampler grid", "tpe"),
    "bad name": ("--name ../x", "name"),
    "not a number": ("--trials many", "--trials"),
    "unknown option": ("--trails 3", "no option --trails; did you mean '--trials'?"),
    "option like no other": ("--zzz", "no option --zzz; gansweep run --help"),
}


@pytest.mark.parametrize("case", WRONG_RUNS)
def test_a_wrong_run_is_one_line_and_writes_nothing(
    case: str,
    inputs: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options, expected = (text.format(**inputs) for text in WRONG_RUNS[case])
    space = [] if "--space" in options else ["--space", "smoke"]
    code, error = gansweep(
        capsys, monkeypatch, "run", *space, "--out", str(tmp_path / "runs"), *options.split()
    )
    last = error.strip().splitlines()[-1]
    assert code == 2
    assert last.startswith("error: ")
    assert expected in last
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("rnu", "error: no command rnu; did you mean 'run'?"),
        ("reportt", "error: no command reportt; did you mean 'report'?"),
        ("frobnicate", "error: no command frobnicate; valid names: data, doctor, "),
        ("--helo", "error: no option --helo; did you mean '--help'?"),
    ],
)
def test_a_mistyped_command_is_answered_with_the_nearest(
    typed: str, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, error = outputs(capsys, monkeypatch, typed)
    assert code == 2
    assert error.startswith(expected)
    assert len(error.splitlines()) == 1
    assert out == ""


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_without_a_command_the_help_lists_all(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, error = outputs(capsys, monkeypatch, *arguments)
    assert code == 0
    assert error == ""
    assert "Usage: gansweep" in out
    assert [name for name in COMMANDS if f" {name} " not in out] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_names_its_purpose_and_all_its_options(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, error = outputs(capsys, monkeypatch, command, "--help")
    assert code == 0
    assert error == ""
    assert f"Usage: gansweep {command} " in out
    purpose = (COMMANDS[command].help or "").split()
    assert purpose[:5] == out[out.index(purpose[0]) :].split()[:5]
    flags = {flag for one in COMMANDS[command].params if one.param_type_name == "option" for flag in one.opts}
    assert [flag for flag in flags if flag not in out] == []
    for one in COMMANDS[command].params:
        described = (getattr(one, "help", None) or "").split()
        assert " ".join(described[:1]) in out


@pytest.mark.parametrize(("levels", "code"), [([], 0), (["ok", "warn"], 0), (["warn", "bad", "ok"], 1)])
def test_a_bad_finding_is_an_exit_code(
    levels: list[Level], code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Finding("x", level, "") for level in levels]
    monkeypatch.setattr("pipeline.cli.doctor.diagnose.diagnose", lambda *asked: found)
    assert gansweep(capsys, monkeypatch, "doctor")[0] == code


@pytest.mark.timeout(300)
def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", "--space", "smoke", "--data", "digits", "--dry-run"]
        + ["--extractor", "pixels", "--second-extractor", "none"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "mfgp + asha" in done.stdout
    assert "per trial at most, on cores" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_loads_neither_torch_nor_ray_nor_mlflow() -> None:
    """A command begins in a quarter of a second; what it does not need would take seconds."""
    code = "import sys, pipeline.cli.main; print({'torch', 'ray', 'mlflow', 'optuna'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr
