"""Checks of the environment of this process: the encoding, the home, proxies, another `pipeline`."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from urllib.request import getproxies_environment

import pipeline
from pipeline.cli.doctor.finding import Finding
from pipeline.errors import redact


def check_environment() -> list[Finding]:
    """One finding for each of them."""
    return [check_encoding(), check_home(), check_proxies(), check_pipeline()]


def check_encoding() -> Finding:
    """Whether every name can be printed here."""
    encoding = (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "")
    if encoding.startswith("utf"):
        return Finding("encoding", "ok", f"output in {sys.stdout.encoding}")
    text = f"output in {encoding or 'an unknown encoding'}: what it lacks is printed as an escape"
    return Finding("encoding", "warn", f"{text}; export LANG=C.UTF-8 and unset PYTHONIOENCODING")


def check_home() -> Finding:
    """The home folder, below which Ray keeps its token and gansweep its cache."""
    home = Path.home()
    if home.is_dir():
        return Finding("home", "ok", str(home))
    return Finding("home", "warn", f"{home} is not there; export HOME=FOLDER, one that can be written")


def check_proxies() -> Finding:
    """The proxies of the environment, without passwords."""
    found = {name: address for name, address in getproxies_environment().items() if name != "no"}
    if not found:
        return Finding("proxies", "ok", "none in the environment")
    shown = ", ".join(f"{name}_proxy={redact(address)}" for name, address in sorted(found.items()))
    text = f"{shown}; this machine is asked directly, other servers where no_proxy names them"
    return Finding("proxies", "ok", text)


def check_pipeline() -> Finding:
    """Whether Python would find another module called `pipeline` before gansweep's."""
    ours = os.path.dirname(os.path.realpath(str(pipeline.__file__)))
    found = PathFinder.find_spec("pipeline", [os.getcwd(), *sys.path])
    other = os.path.realpath(found.origin) if found and found.origin else ""
    if not other or os.path.dirname(other) == ours:
        return Finding("pipeline", "ok", ours)
    text = f"{other} is found first; `gansweep` uses its own, {ours}"
    return Finding("pipeline", "ok", f"{text}: start it by that name, and import gansweep in Python")
