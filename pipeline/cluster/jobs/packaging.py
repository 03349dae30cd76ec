"""A sweep as a job: its command, the folder that is sent with it, and whether the cluster sees its paths."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.storage.addresses import parse_source

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


def pack_job(arguments: Sequence[str], folder: Path, space: Path | None) -> JobPackage:
    """The job of `gansweep run` with these arguments, sent from `folder`.

    space: the space's file; None = gansweep comes with it.

    Raises:
        ConfigError: the folder cannot be sent, or the space is not in it.
    """
    if folder == Path.home() or folder == Path(folder.anchor):
        raise ConfigError(
            "submit would send all of {seen}",
            rule="it sends the folder in which it is called",
            seen=str(folder),
            fix="call it in a folder that holds the space and little else",
        )
    if space and (space.is_absolute() or ".." in space.parts):
        raise ConfigError(
            "--space {seen} is not a path below the folder that is sent",
            rule=f"the space lies in {folder} and is named from there",
            seen=str(space),
            fix=f"copy it here and write --space {space.name}",
        )
    return JobPackage(f"gansweep run {shlex.join([*arguments, '--address', 'auto'])}", folder)


def check_visible(
    data: str, out: Path, tracking_uri: str, storage: str, *, classes: str, weights: str
) -> None:
    """Refuse paths and stores of this machine, which a cluster cannot see.

    data: the source. storage: URL of the study's database. classes, weights: files of the images' classes and
    of the extractor's weights; "" = none.

    Raises:
        ConfigError: the first of them.
    """
    source = parse_source(data)
    if source and not Path(source.path).is_absolute():
        fix = f"copy them to storage that it sees: --data {source.prefix}/shared/{Path(source.path).name}"
        raise _not_visible(f"--data {data}", "a path", "see the images", fix)
    if classes and not Path(classes).is_absolute():
        fix = f"copy it to storage that it sees: --classes /shared/{Path(classes).name}"
        raise _not_visible(f"--classes {classes}", "a path", "see the file of classes", fix)
    if not out.is_absolute():
        raise ConfigError(
            "--out {seen} is a path of this machine",
            rule="it must be a folder that the cluster's nodes share",
            seen=str(out),
            fix="write --out /shared/runs, with the folder that is mounted on every node",
        )
    if weights and not Path(weights).is_absolute():
        fix = f"copy them to storage that its nodes share: /shared/{Path(weights).name}"
        raise _not_visible(f"--extractor-weights {weights}", "a path", "see the extractor's weights", fix)
    if storage.startswith("sqlite") or (storage and "://" not in storage):
        fix = "name a database (postgresql://HOST/DATABASE), or leave it out for a file below --out"
        raise _not_visible(f"--storage {storage}", "a file", "reach the study", fix)
    is_path = tracking_uri not in ("", "databricks") and ":" not in tracking_uri
    if is_path or re.match(r"(sqlite(\+\w+)?|file):", tracking_uri):
        fix = "name a server (http://HOST:5000), or leave it out for a file below --out"
        raise _not_visible(f"--tracking-uri {tracking_uri}", "a file", "reach the tracking store", fix)


def _not_visible(option: str, kind: str, need: str, fix: str) -> ConfigError:
    """The error for an option whose value is a path or a file of this machine."""
    return ConfigError(
        f"{{seen}} is {kind} of this machine", rule=f"the cluster must {need}", seen=option, fix=fix
    )
