"""A `pipeline` of the user's own beside gansweep's: the command and the import work all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = [str(Path(sys.executable).parent / "gansweep")]
MODULE = [sys.executable, "-m", "gansweep"]
THEIRS = "raise SystemExit('this is the pipeline of the user')"


def call(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        encoding="utf-8",
    )


@pytest.fixture(params=["pipeline.py", "pipeline/__init__.py"])
def hiding(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a module that is called like our package."""
    (tmp_path / request.param).parent.mkdir(exist_ok=True)
    (tmp_path / request.param).write_text(THEIRS, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("command", [SCRIPT, MODULE], ids=["script", "module"])
@pytest.mark.parametrize("path", [".", "absolute"])
def test_the_command_starts_beside_it(hiding: Path, command: list[str], path: str) -> None:
    python_path = path if path == "." else os.pathsep.join([str(hiding), str(ROOT)])
    for arguments in (["--help"], ["validate", "smoke"]):
        done = call([*command, *arguments], hiding, PYTHONPATH=python_path)
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("smoke: ok")


def test_python_finds_ours_and_its_own_path_is_as_before(hiding: Path) -> None:
    code = "import sys; before = [*sys.path]; import gansweep, pipeline; assert sys.path == before; "
    code += "print(pipeline.__file__, gansweep.run.__name__, gansweep.UserError.__name__)"
    done = call([sys.executable, "-c", code], hiding)
    assert done.stderr == ""
    assert done.stdout.split() == [str(ROOT / "pipeline" / "__init__.py"), "run", "UserError"]


def test_another_one_that_is_loaded_already_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").touch()
    done = call([sys.executable, "-c", "import pipeline, gansweep"], tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: gansweep has a package called pipeline, and this process has loaded")
    assert str(tmp_path / "pipeline.py") in last


def test_a_module_of_the_users_is_loaded_from_such_a_folder(hiding: Path) -> None:
    (hiding / "mine.py").write_text("import helper\ndef faces(): raise ValueError(helper.WHY)", "utf-8")
    (hiding / "helper.py").write_text("WHY = 'it is found'", "utf-8")
    command = [*MODULE, "run", "--space", "smoke", "--data", "mine:faces", "--dry-run"]
    done = call(command, hiding, PYTHONPATH=".")
    assert done.returncode == 2
    assert "it is found" in done.stderr


def test_a_module_called_pipeline_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text("def faces(): raise ValueError('theirs runs')", "utf-8")
    command = [*MODULE, "run", "--space", "smoke", "--data", "pipeline:faces", "--dry-run"]
    done = call(command, tmp_path, PYTHONPATH=".")
    assert done.returncode == 2
    assert "theirs runs" in done.stderr.splitlines()[-1]
