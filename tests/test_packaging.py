"""What is installed without a checkout: sdist and wheel are complete, and the wheel alone runs a sweep."""

from __future__ import annotations

import re
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tools import release

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return release.build(tmp_path_factory.mktemp("dist"))


def _files(*folders: str) -> set[str]:
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_every_space(built: tuple[Path, Path]) -> None:
    inside = {name for name in zipfile.ZipFile(built[1]).namelist() if ".dist-info/" not in name}
    code = _files("pipeline", "gansweep")
    assert {"pipeline/py.typed", "gansweep/py.typed"} <= code
    data = {f"pipeline/{name}" for name in (*_files("search_spaces"), "constraints.txt")}
    assert inside == code | data


@pytest.mark.slow
def test_the_sdist_holds_what_a_developer_needs_and_nothing_that_was_built(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = _files(
        "pipeline", "gansweep", "search_spaces", "tests", "docs", "examples", "benchmarks", "tools"
    )
    assert wanted <= names
    assert {
        "Makefile",
        "constraints.txt",
        "mkdocs.yml",
        "CHANGELOG.md",
        "pyproject.toml",
        "README.md",
    } <= names
    tops = {name.partition("/")[0] for name in names}
    assert not tops & {"build", "runs", "mlruns", ".venv", ".git"}


@pytest.mark.slow
def test_version_changelog_citation_and_description_agree(built: tuple[Path, Path]) -> None:
    assert release.check_metadata(built[1]) == release.newest_version((ROOT / "CHANGELOG.md").read_text())
    found = release.metadata(built[1])
    assert (found["License-Expression"], found["Requires-Python"]) == ("Apache-2.0", ">=3.11")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_alone_runs_a_sweep_and_samples_its_champion(
    built: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In an environment that has this one's dependencies, but not its checkout."""
    environment, folder = tmp_path / "environment", tmp_path / "empty"
    folder.mkdir()
    venv.create(environment)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    install = ["-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(built[1])]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    asked = (
        "import pipeline; from pipeline.cli.doctor.software import CONSTRAINTS as pins; print(pins.is_file())"
    )
    code = f"{asked}; print(pipeline.__file__)"
    answer = subprocess.run(
        [python, "-c", code], cwd=folder, check=True, capture_output=True, text=True
    ).stdout
    assert answer.splitlines() == ["True", str(packages / "pipeline" / "__init__.py")]
    release.try_commands(python, folder)
    assert "models:/first@champion" in capfd.readouterr().out


def test_the_constraints_pin_names_and_versions_alone() -> None:
    """Nothing that `pip freeze` writes of one machine: no editable install, no path, no address."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("# ")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!]+", pin)] == []
    assert "Editable" not in lines[0]
