"""A sweep as a job: its command and the folder that is sent with it.

Checks that the cluster can see every path; sends nothing itself.
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
"""Patterns (as in .gitignore) of what is never sent, beside what .gitignore and .rayignore name."""


@dataclass(frozen=True)
class JobPackage:
    """A job before it is sent: its command, the folder that it runs in, patterns of what is not sent."""

    command: str
    folder: Path
    left_behind: tuple[str, ...]


def pack_job(
    typed: Sequence[str],
    *,
    folder: Path,
    space: Path,
    builtin: bool,
    data: str,
    out: Path,
    tracking_uri: str,
    typed_tracking: bool,
    storage: str = "",
    weights: str = "",
) -> JobPackage:
    """The job of `gansweep run` with the arguments as they were `typed`, sent from `folder`.

    Args:
        typed: arguments of the command line.
        folder: what is sent.
        space: the space's file.
        builtin: whether the space is one that gansweep comes with.
        data: the data source.
        out: the folder for sweeps.
        tracking_uri: of the tracking store.
        typed_tracking: False where the tracking store comes from this machine's environment; it is then
            added to the job's arguments.
        storage: URL of the study's database.
        weights: file of the extractor's weights.

    Raises:
        ConfigError: the cluster cannot see one of the paths.
    """
    if folder == Path.home() or folder == Path(folder.anchor):
        raise ConfigError(
            "submit would send all of {seen}",
            rule="it sends the folder in which it is called",
            seen=str(folder),
            fix="call it in a folder that holds the space and little else",
        )
    check_visible(data=data, out=out, tracking_uri=tracking_uri, storage=storage, weights=weights)
    if not builtin and (space.is_absolute() or ".." in space.parts):
        raise ConfigError(
            "--space {seen} is not a path below the folder that is sent",
            rule=f"the space lies in {folder} and is named from there",
            seen=str(space),
            fix=f"copy it here and write --space {space.name}",
        )
    arguments = [*typed, "--address", "auto"]
    if tracking_uri and not typed_tracking:
        arguments += ["--tracking-uri", tracking_uri]
    return JobPackage(f"gansweep run {shlex.join(arguments)}", folder, tuple(LEFT_BEHIND))


def check_visible(*, data: str, out: Path, tracking_uri: str, storage: str = "", weights: str = "") -> None:
    """Refuse paths and stores of this machine, which a cluster cannot see; arguments as of `pack_job`.

    Raises:
        ConfigError: the first of them.
    """
    kind, _, path = data.partition(":")
    if kind in ("folder", "npz") and not Path(path).is_absolute():
        raise ConfigError(
            "--data {seen} is a path of this machine",
            rule="the cluster must see the images",
            seen=data,
            fix=f"copy them to storage that its nodes share: --data {kind}:/shared/{Path(path).name}",
        )
    if not out.is_absolute():
        raise ConfigError(
            "--out {seen} is a path of this machine",
            rule="it must be a folder that the cluster's nodes share",
            seen=str(out),
            fix="write --out /shared/runs, with the folder that is mounted on every node",
        )
    if weights and not Path(weights).is_absolute():
        raise ConfigError(
            "--extractor-weights {seen} is a path of this machine",
            rule="the cluster must see the extractor's weights",
            seen=weights,
            fix=f"copy them to storage that its nodes share: /shared/{Path(weights).name}",
        )
    if storage.startswith("sqlite") or (storage and "://" not in storage):
        raise ConfigError(
            "--storage {seen} is a file of this machine",
            rule="the cluster must reach the study",
            seen=storage,
            fix="name a database (postgresql://HOST/DATABASE), or leave it out for a file below --out",
        )
    if re.match(r"(sqlite(\+\w+)?|file):", tracking_uri) or _is_path(tracking_uri):
        raise ConfigError(
            "--tracking-uri {seen} is a file of this machine",
            rule="the cluster must reach the tracking store",
            seen=tracking_uri,
            fix="name a server (http://HOST:5000), or leave it out for a file below --out",
        )


def _is_path(uri: str) -> bool:
    return uri not in ("", "databricks") and ":" not in uri


def runtime_env(package: JobPackage) -> dict[str, Any]:
    """The job's runtime environment for Ray; no secret of this machine is in it."""
    return {
        "working_dir": str(package.folder),
        "excludes": list(package.left_behind),
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"},  # trials stop at their next step
    }
