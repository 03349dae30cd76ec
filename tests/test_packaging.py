"""What is installed without a checkout: the wheel holds every module, and every file that they read."""

from __future__ import annotations

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
    code = {
        path for path in (ROOT / "pipeline").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    spaces = set((ROOT / "search_spaces").rglob("*.toml"))
    expected = {path.relative_to(ROOT).as_posix() for path in code}
    expected |= {f"pipeline/{path.relative_to(ROOT).as_posix()}" for path in spaces}
    assert inside == expected
