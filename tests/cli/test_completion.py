"""Completion in a shell: by its own protocol, in bash itself, and without loading what is slow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/nonexistent"}
HEAVY = (
    "import sys; import pipeline.cli.completion; print({'torch', 'ray', 'mlflow', 'optuna'} & {*sys.modules})"
)


def complete(folder: Path, line: str) -> list[str]:
    """What bash is answered for a line whose last word is being typed."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-m", "gansweep"],
        env=ENVIRONMENT
        | {"_GANSWEEP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_options_and_values(tmp_path: Path) -> None:
    (tmp_path / "runs" / "photos").mkdir(parents=True)
    (tmp_path / "runs" / "photos" / "sweep.toml").touch()
    (tmp_path / "mine.toml").touch()
    assert complete(tmp_path, "gansweep re") == ["resume", "rerun", "report", "register"]
    assert complete(tmp_path, "gansweep run --spa") == ["--space"]
    assert complete(tmp_path, "gansweep run --space m") == ["mlp", "mnist5k", "mine.toml"]
    assert complete(tmp_path, "gansweep run --recipe s") == ["sngan"]
    assert complete(tmp_path, "gansweep data f") == ["fashion-mnist", "folder:"]
    assert complete(tmp_path, "gansweep resume runs/p") == ["runs/photos"]


def test_completion_loads_nothing_slow() -> None:
    done = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_the_script() -> None:
    command = shutil.which("gansweep", path=ENVIRONMENT["PATH"])
    if command is None:
        pytest.skip("gansweep is not installed as a command")
    script = subprocess.run(
        [command],
        env=ENVIRONMENT | {"_GANSWEEP_COMPLETE": "source_bash"},
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    typed = "COMP_WORDS=(gansweep run --sampler q); COMP_CWORD=3; _gansweep_completion gansweep"
    answer = 'printf "%s\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{typed}\n{answer}"],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["qmc"], done.stderr
