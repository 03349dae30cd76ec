"""A sweep as a job: its command and the folder that is sent with it.

Checks that the cluster can see every path; sends nothing itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.tables import DATA_SOURCES

LEFT_BEHIND = [
    *("/runs/", "/mlruns/", "/build/", ".venv/", "venv/", ".git/", "__pycache__/", ".*_cache/"),
    *("*.pt", "*.db", "*.egg-info/"),
]
"""Patterns (as in .gitignore) of what is never sent, beside what .gitignore and .rayignore name."""


@dataclass(frozen=True)
class JobPackage:
    """A job before it is sent: its command, and the folder that it runs in."""

    command: str
    folder: Path


@dataclass(frozen=True, kw_only=True)
class JobInputs:
    """What a job reads and writes, as the options of `gansweep run` name it.

    space: the space's file. builtin: whether gansweep comes with it. data: the data source. out: the folder
    for sweeps. tracking_uri: of the tracking store. typed_tracking: whether it was typed, not taken from this
    machine's environment. storage: URL of the study's database. weights: file of the extractor's weights.
    """

    space: Path
    builtin: bool
    data: str
    out: Path
    tracking_uri: str
    typed_tracking: bool
    storage: str
    weights: str


def pack_job(typed: Sequence[str], folder: Path, inputs: JobInputs) -> JobPackage:
    """The job of `gansweep run` with the arguments as they were `typed`, sent from `folder`.

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
    _check_visible(inputs)
    space = inputs.space
    if not inputs.builtin and (space.is_absolute() or ".." in space.parts):
        raise ConfigError(
            "--space {seen} is not a path below the folder that is sent",
            rule=f"the space lies in {folder} and is named from there",
            seen=str(space),
            fix=f"copy it here and write --space {space.name}",
        )
    arguments = [*typed, "--address", "auto"]
    if inputs.tracking_uri and not inputs.typed_tracking:
        arguments += ["--tracking-uri", inputs.tracking_uri]
    return JobPackage(f"gansweep run {shlex.join(arguments)}", folder)


def _check_visible(inputs: JobInputs) -> None:
    """Refuse paths and stores of this machine, which a cluster cannot see.

    Raises:
        ConfigError: the first of them.
    """
    kind, _, path = inputs.data.partition(":")
    if kind in DATA_SOURCES and DATA_SOURCES[kind].path and not Path(path).is_absolute():
        fix = f"copy them to storage that its nodes share: --data {kind}:/shared/{Path(path).name}"
        raise _not_visible(f"--data {inputs.data}", "a path", "see the images", fix)
    if not inputs.out.is_absolute():
        raise ConfigError(
            "--out {seen} is a path of this machine",
            rule="it must be a folder that the cluster's nodes share",
            seen=str(inputs.out),
            fix="write --out /shared/runs, with the folder that is mounted on every node",
        )
    weights, storage, uri = inputs.weights, inputs.storage, inputs.tracking_uri
    if weights and not Path(weights).is_absolute():
        fix = f"copy them to storage that its nodes share: /shared/{Path(weights).name}"
        raise _not_visible(f"--extractor-weights {weights}", "a path", "see the extractor's weights", fix)
    if storage.startswith("sqlite") or (storage and "://" not in storage):
        fix = "name a database (postgresql://HOST/DATABASE), or leave it out for a file below --out"
        raise _not_visible(f"--storage {storage}", "a file", "reach the study", fix)
    if re.match(r"(sqlite(\+\w+)?|file):", uri) or _is_path(uri):
        fix = "name a server (http://HOST:5000), or leave it out for a file below --out"
        raise _not_visible(f"--tracking-uri {uri}", "a file", "reach the tracking store", fix)


def _not_visible(option: str, kind: str, need: str, fix: str) -> ConfigError:
    """The error for an option whose value is a path or a file of this machine."""
    return ConfigError(
        f"{{seen}} is {kind} of this machine", rule=f"the cluster must {need}", seen=option, fix=fix
    )


def _is_path(uri: str) -> bool:
    return uri not in ("", "databricks") and ":" not in uri


def runtime_env(package: JobPackage) -> dict[str, object]:
    """The job's runtime environment for Ray; no secret of this machine is in it."""
    return {
        "working_dir": str(package.folder),
        "excludes": LEFT_BEHIND,
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"},  # trials stop at their next step
    }
