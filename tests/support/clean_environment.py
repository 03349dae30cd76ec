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

import pytest

_KEPT = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "CUDA_HOME", "CUDA_VISIBLE_DEVICES")
    + ("CHROMIUM", "UPDATE_GOLDEN", "GANSWEEP_GOLDEN", "GANSWEEP_SHOTS")  # switches of the tests themselves
)
_KEPT_PREFIXES = ("LD_", "NIX_", "NVIDIA_", "PIP_", "PLAYWRIGHT_", "PYTEST_", "SSL_", "UV_")


def _clean() -> None:
    for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        if folder in sys.path[1:]:  # the first is the working folder
            sys.path.remove(folder)
    for name in list(os.environ):
        if name not in _KEPT and not name.startswith(_KEPT_PREFIXES):
            del os.environ[name]
    os.environ["LANG"] = "C.UTF-8"
    time.tzset()
    tempfile.tempdir = None  # pytest has asked for it already
    os.umask(0o022)


def begin_again_in_utf8(config: pytest.Config) -> None:
    """Where the shell has asked for ASCII, start this process again: Python decides that as it starts."""
    if sys.getfilesystemencoding() == "utf-8" and locale.getpreferredencoding(False).lower() == "utf-8":
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


_clean()
