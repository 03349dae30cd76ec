"""Provenance of a sweep's results: git commit, versions, platform."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path


def provenance() -> dict[str, str]:
    """The commit (where the package lies in its own git repository), versions of packages, platform.

    Values are not empty; the keys are MLflow tags.
    """
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("gansweep", "torch", "ray", "optuna", "mlflow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    # A package that is installed below another repository is not tracked by it, and has no commit.
    if _git("ls-files", "--error-unmatch", Path(__file__).name):
        versions["git.commit"] = _git("rev-parse", "HEAD")
        versions["git.dirty"] = "true" if _git("status", "--porcelain", "--untracked-files=no") else "false"
    return {key: value for key, value in versions.items() if value}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
