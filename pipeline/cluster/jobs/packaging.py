"""What a sweep needs to run as a job: its command, and the folder that travels with it.

Owns: which paths the cluster can see, what is left behind. Refuses: sending anything.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

LEFT_BEHIND = [
    *("/runs/", "/mlruns/", "/build/", ".venv/", "venv/", ".git/", "__pycache__/", ".*_cache/"),
    *("*.pt", "*.db", "*.egg-info/"),
]
"""Never sent, beside what .gitignore and .rayignore name (patterns as in .gitignore)."""


@dataclass(frozen=True)
class JobPackage:
    """A job to be: its command, the folder that it runs in, and what of that folder stays here."""

    command: str
    folder: Path
    left_behind: tuple[str, ...]


def pack_job(
    typed: Sequence[str],
    *,
    folder: Path,
    space: Path,
    shipped: bool,
    data: str,
    out: Path,
    tracking_uri: str,
    typed_tracking: bool,
    storage: str = "",
    weights: str = "",
) -> JobPackage:
    """The job of `gansweep run` with the arguments as they were `typed`, sent from `folder`.

    space: the space's file; `shipped` where it is one of gansweep's own. typed_tracking: False where the
    tracking store comes from this machine's environment; the job is then given it. storage: of the study.
    weights: of the extractor.

    Raises:
        ConfigError: a path is one that the cluster cannot see.
    """
    if folder == Path.home() or folder == Path(folder.anchor):
        raise ConfigError(
            "submit sends the folder that it is called in",
            seen=str(folder),
            fix="call it in a folder that holds the space and little else",
        )
    check_seen(data=data, out=out, tracking_uri=tracking_uri, storage=storage, weights=weights)
    if not shipped and (space.is_absolute() or ".." in space.parts):
        raise ConfigError(
            "the space lies in the folder that is sent, and is named from there",
            seen=f"--space {space} from {folder}",
            fix=f"copy it here and write --space {space.name}",
        )
    arguments = [*typed, "--address", "auto"]
    if tracking_uri and not typed_tracking:
        arguments += ["--tracking-uri", tracking_uri]
    return JobPackage(f"gansweep run {shlex.join(arguments)}", folder, tuple(LEFT_BEHIND))


def check_seen(*, data: str, out: Path, tracking_uri: str, storage: str = "", weights: str = "") -> None:
    """Refuse what lies on this machine alone.

    Raises:
        ConfigError: see there.
    """
    kind, _, path = data.partition(":")
    if kind in ("folder", "npz") and not Path(path).is_absolute():
        raise ConfigError(
            "the cluster sees the images",
            seen=f"--data {data}, a path of this machine",
            fix=f"copy them to storage that its nodes share: --data {kind}:/shared/{Path(path).name}",
        )
    if not out.is_absolute():
        raise ConfigError(
            "--out is a folder that the cluster's nodes share",
            seen=f"{out}, a path of this machine",
            fix="write --out /shared/runs, with the folder that is mounted on every node",
        )
    if weights and not Path(weights).is_absolute():
        raise ConfigError(
            "the cluster sees the extractor's weights",
            seen=f"--extractor-weights {weights}, a path of this machine",
            fix=f"copy them to storage that its nodes share: /shared/{Path(weights).name}",
        )
    if storage.startswith("sqlite") or (storage and "://" not in storage):
        raise ConfigError(
            "the cluster reaches the study",
            seen=f"--storage {storage}, a file of this machine",
            fix="name a database (postgresql://HOST/DATABASE), or leave it out for a file below --out",
        )
    if re.match(r"(sqlite(\+\w+)?|file):", tracking_uri) or _is_path(tracking_uri):
        raise ConfigError(
            "the cluster reaches the tracking store",
            seen=f"{tracking_uri}, a file of this machine",
            fix="name a server (http://HOST:5000), or leave it out for a file below --out",
        )


def _is_path(uri: str) -> bool:
    return uri not in ("", "databricks") and ":" not in uri


def runtime_env(package: JobPackage) -> dict[str, Any]:
    """Ray's description of the job's surroundings; no secret of this machine is in it."""
    return {
        "working_dir": str(package.folder),
        "excludes": list(package.left_behind),
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"},  # trials leave at their next step
    }
