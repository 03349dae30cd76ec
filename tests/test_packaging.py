"""What is installed without a checkout: the wheel holds every module, and every file that they read."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_every_space(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("gansweep-*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = [path for package in ("pipeline", "gansweep") for path in (ROOT / package).rglob("*")]
    code = {path for path in files if path.is_file() and "__pycache__" not in path.parts}
    assert {ROOT / "pipeline" / "py.typed", ROOT / "gansweep" / "py.typed"} <= code
    spaces = set((ROOT / "search_spaces").rglob("*.toml"))
    expected = {path.relative_to(ROOT).as_posix() for path in code}
    expected |= {f"pipeline/{path.relative_to(ROOT).as_posix()}" for path in spaces}
    assert inside == expected


def test_the_constraints_pin_names_and_versions_alone() -> None:
    """Nothing that `pip freeze` writes of one machine: no editable install, no path, no address."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("# ")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!]+", pin)] == []
    assert "Editable" not in lines[0]
