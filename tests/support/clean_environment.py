"""The environment in which all tests and their processes run: a plain one, whatever the shell has set.

Importing this cleans the environment of this process. It comes before every other import: numpy, torch, Ray
and MLflow read theirs when they are imported.
"""

from __future__ import annotations

import locale
import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_KEPT = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "CUDA_HOME", "CUDA_VISIBLE_DEVICES")
    + ("CHROMIUM", "UPDATE_GOLDEN", "GANSWEEP_GOLDEN", "GANSWEEP_SHOTS")  # switches of the tests themselves
)
_KEPT_PREFIXES = ("COVERAGE_", "LD_", "NIX_", "NVIDIA_", "PIP_", "PLAYWRIGHT_", "PYTEST_", "SSL_", "UV_")
_AT_START = frozenset(("PYTHONDEVMODE", "PYTHONOPTIMIZE", "PYTHONWARNINGS"))


def _clean() -> list[str]:
    """Returns the names of what was set."""
    strangers = {os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    strangers = (strangers | {"", os.getcwd()}) - {str(ROOT)}
    sys.path[:] = [folder for folder in sys.path if folder not in strangers]
    set_names = [name for name in os.environ if name not in _KEPT and not name.startswith(_KEPT_PREFIXES)]
    for name in set_names:
        del os.environ[name]
    os.environ["LANG"] = "C.UTF-8"
    time.tzset()
    tempfile.tempdir = None  # pytest has asked for it already
    os.umask(0o022)
    return set_names


def begin_again(config: pytest.Config) -> None:
    """Start this process again if it began with what Python reads only then: ASCII, warnings, -O."""
    utf8 = sys.getfilesystemencoding() == locale.getpreferredencoding(False).lower() == "utf-8"
    if utf8 and not _AT_START.intersection(_WAS_SET):
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


_WAS_SET = _clean()
