"""The parsing of options that are texts; what cannot be read is a ConfigError."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.search.resources import check_gpus_per_trial


def parse_duration(text: str | float) -> float:
    """`90s`, `10m`, `8h`, `2d` or plain seconds above 0, in seconds; empty is 0 (no limit)."""
    if text == "":
        return 0.0
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(text).strip())
    if not match or float(match[1]) == 0:
        raise ConfigError(
            "time {seen} cannot be read",
            rule="a number above 0 with s, m, h or d",
            seen=str(text),
            fix="write 10m",
        )
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def parse_wait(text: str | float) -> float:
    """`wait` in seconds; 0 means for ever."""
    return 0.0 if str(text).strip() == "0" else parse_duration(text)


def parse_gpus_per_trial(text: str | float) -> float:
    """The GPUs of a trial: `auto` is -1, else a number from 0 to 1."""
    if text == "auto":
        return -1.0
    try:
        gpus = float(text)
    except (TypeError, ValueError):
        gpus = float("nan")
    if not gpus >= 0:
        raise ConfigError(
            "--gpus-per-trial {seen} cannot be used",
            rule="auto or a number from 0",
            seen=text,
            fix="write 0.25 or auto",
        )
    check_gpus_per_trial(gpus)
    return gpus


def parse_settings(given: Mapping[str, object] | Sequence[str]) -> dict[str, object]:
    """`key=value` with the value as TOML reads it; a value that is not TOML is a string. Or a mapping."""
    if isinstance(given, Mapping):
        return dict(given)
    settings: dict[str, object] = {}
    for pair in given:
        key, separator, text = pair.partition("=")
        if not separator or not key.strip():
            raise ConfigError(
                "--set {seen} cannot be read", rule="key=value", seen=pair, fix="write --set batch_size=64"
            )
        try:
            settings[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            settings[key.strip()] = text.strip()
    return settings


def check_storage(url: str) -> None:
    """Reject a password on the command line, where every process of the machine can read it."""
    if os.environ.get("GANSWEEP_STORAGE") != url and has_password(url):
        parts = urlsplit(url)
        raise ConfigError(
            "there is a password in --storage {seen}",
            rule="passwords come from the environment, not from the command line",
            seen=f"{parts.scheme}://{parts.hostname}{parts.path}",
            fix="export GANSWEEP_STORAGE with the whole URL, or PGUSER and PGPASSWORD, and leave it out here",
        )


def has_password(uri: str) -> bool:
    """Whether a URL carries a password."""
    try:
        parts = urlsplit(uri)
        return bool(parts.password) or "password=" in parts.query.lower()
    except ValueError:
        return False
