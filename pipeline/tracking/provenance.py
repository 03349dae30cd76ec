"""Where a number comes from: commit, versions, platform."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path


def provenance() -> dict[str, str]:
    """Where a number comes from: the commit (where the package is under git), versions, platform."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("gansweep", "torch", "ray", "optuna", "mlflow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    # A package installed below somebody else's repository is not part of that repository.
    if _git("ls-files", "--error-unmatch", Path(__file__).name):
        versions["git.commit"] = _git("rev-parse", "HEAD")
        versions["git.dirty"] = "true" if _git("status", "--porcelain", "--untracked-files=no") else "false"
    return {key: value for key, value in versions.items() if value}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
