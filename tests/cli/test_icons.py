"""`gansweep data` on real colour pictures with classes, as docs/guides/images.md prepares them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import icons
import pytest

NEEDS_ICONS = pytest.mark.skipif(bool(icons.missing_themes()), reason=icons.missing_themes())


@NEEDS_ICONS
@pytest.mark.slow
def test_a_folder_of_icons_is_understood(tmp_path):
    written = icons.write_icons(tmp_path / "icons")
    command = [sys.executable, "-m", "gansweep", "data", f"folder:{tmp_path / 'icons'}", "--json"]
    environment = {**os.environ, "GANSWEEP_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert written >= 1500
    assert (found["images"], found["size"], found["channels"]) == (written, 64, 3)
    assert tuple(found["classes"]) == icons.CLASSES
    assert (found["left_out"], found["extractor"]) == ({}, "efficientnet")


def test_without_a_folder_the_usage_is_told():
    done = subprocess.run([sys.executable, icons.__file__], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "usage: python tests/support/icons.py FOLDER\n")


def test_missing_themes_are_named_with_their_command(monkeypatch, tmp_path):
    monkeypatch.setattr(icons, "_ROOT", tmp_path)
    (tmp_path / "Moka" / "64x64" / "apps").mkdir(parents=True)
    assert icons.missing_themes() == (
        "the icons of oxygen, faenza are not installed (apt-get install --no-install-recommends "
        "oxygen-icon-theme moka-icon-theme faenza-icon-theme)"
    )
