"""The versions that a cluster and this machine must have in common."""

from __future__ import annotations

import importlib.metadata

from pipeline.errors import ConfigError


def version_of(package: str) -> str | None:
    """The installed version of a distribution, without importing it; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions_differ(seen: str) -> ConfigError:
    """The error for a cluster with another Ray or Python. seen: both sides' versions."""
    return ConfigError(
        "the versions of the cluster and of this machine differ",
        rule="both must have the same ray and python",
        seen=seen,
        fix="install what constraints.txt pins on both",
    )
