"""`gansweep data`: the table, the object, the sheet; a wrong source is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from images import noise, write_folder
from PIL import Image

from pipeline.data.pictures import is_drawing


def gansweep(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gansweep", "data", *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GANSWEEP_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = write_folder(tmp_path / "in", noise((80, 16, 16, 3)), np.arange(80) % 11)
    (root / "Thumbs.db").write_bytes(b"x")
    Image.fromarray(noise((16, 16))).save(root / "cover.png")
    return root


def test_table_and_sheet(folder: Path, tmp_path: Path) -> None:
    done = gansweep(tmp_path, f"folder:{folder}", "--out", str(tmp_path / "sheet.png"))
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    for part in ("80 images (16 held out), 16x16, colour", "11 classes", "10: class10 (7)", "Thumbs.db"):
        assert part in done.stdout
    assert f"\ngansweep run --data folder:{folder} --time-budget 1h\n" in done.stdout
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert is_drawing(sheet)


def test_json_alone_on_stdout(folder: Path, tmp_path: Path) -> None:
    done = gansweep(tmp_path, f"folder:{folder}", "--json", "--classes", "none")
    found = json.loads(done.stdout)
    assert (found["images"], found["classes"], found["channels"]) == (81, None, 3)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folder:nowhere"], "there is no folder nowhere"),
        (["digits", "--fit", "squeeze"], "fit"),
        (["digits", "--background", "nocolour"], "background=nocolour is no colour"),
        (["digits", "--image-size", "4"], "image_size=4 is out of range"),
        (["digits", "--out", "nowhere/sheet.png"], "no folder for --out nowhere/sheet.png;"),
        (["digits", "--out", "sheet.jpg"], "--out sheet.jpg is no PNG"),
        (["digits", "--out", "TMP/folder.png"], "folder.png is a folder"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    done = gansweep(tmp_path, *(text.replace("TMP", str(tmp_path)) for text in arguments))
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
