"""Names in a registry, by MLflow's rules: of models and of aliases."""

from __future__ import annotations

import re

from pipeline.errors import RegistryError
from pipeline.tracking.server import is_prompt_on_server
from pipeline.tracking.store_schema import is_prompt

CHAMPION, CANDIDATE = "champion", "candidate"
PROMOTE = ("never", CANDIDATE, CHAMPION)
"""The highest alias that a new version may get by itself."""


def check_registration(name: str, promote: str, *, option: str = "--name") -> None:
    """RegistryError where a model cannot have this name (given by `option`), or `promote` is unknown."""
    if not re.fullmatch(r"\w[\w .-]{0,198}[\w.-]|\w", name):
        raise RegistryError(
            "{seen} cannot be a model's name",
            rule="at most 200 letters, digits, '.', '_', '-' and spaces",
            seen=repr(name),
            fix=f"choose another with {option}",
        )
    if promote not in PROMOTE:
        raise RegistryError(
            "--promote {seen} is unknown",
            rule="it must be never, candidate or champion",
            seen=promote,
            fix="write --promote candidate",
        )


def check_alias(alias: str) -> None:
    """RegistryError where a version cannot have this alias: MLflow keeps `latest` and `v3` to itself."""
    fix = f"write --alias {CHAMPION}, or another name"
    if not re.fullmatch(r"[\w-]{1,255}", alias):
        rule = "at most 255 letters, digits, '_' and '-'"
        raise RegistryError("--alias {seen} cannot be an alias", rule=rule, seen=repr(alias), fix=fix)
    if alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias):
        rule = "MLflow means versions by `latest` and by v1, v2 ..."
        raise RegistryError("--alias {seen} is reserved", rule=rule, seen=alias, fix=fix)


def check_no_prompt(uri: str, name: str, *, option: str = "--name") -> None:
    """RegistryError where the registry has a prompt of this name: prompts and models share their names."""
    on_server = uri.startswith(("http://", "https://"))
    if (is_prompt_on_server if on_server else is_prompt)(uri, name):
        raise RegistryError(
            "{seen} is the name of a prompt in the registry",
            rule="a model needs a name of its own",
            seen=name,
            fix=f"choose another with {option}",
        )
