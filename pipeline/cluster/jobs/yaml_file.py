"""Reading a cluster file as YAML: its kind, its documents, the placeholders still to be filled in."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.errors import ConfigError

Kind = Literal["space", "cluster", "kuberay"]

# Values of the example files that only their user can know.
_PLACEHOLDERS = re.compile(r"(ami|fs)-0(?:0+|123456789abcdef0)\b")


def cluster_file_kind(path: Path) -> Kind:
    """The kind of a file by its content: TOML is a space, YAML a Ray cluster file or a KubeRay RayJob.

    Raises:
        ConfigError: it is unreadable, or none of the three.
    """
    text = read_yaml(path)
    if path.suffix.lower() == ".toml" or (path.suffix.lower() not in {".yaml", ".yml"} and _is_toml(text)):
        return "space"
    found = documents(path, text)
    if any(document.get("kind") == "RayJob" for document in found):
        return "kuberay"
    if any("cluster_name" in document for document in found):
        return "cluster"
    raise ConfigError(
        "a file of unknown kind",
        rule="a space (TOML), a cluster file (YAML with cluster_name) or a RayJob can be checked",
        seen=f"{path} with keys {', '.join(sorted(map(str, found[0])))}",
        fix="see search_spaces/, cluster.yaml and kuberay.yaml for one of each",
    )


def read_yaml(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            "a file cannot be read", seen=f"{path}: {reason}", fix="check the path and its permissions"
        ) from error


def _is_toml(text: str) -> bool:
    try:
        return bool(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return False


def documents(path: Path, text: str) -> list[dict[str, Any]]:
    """The YAML documents in `text`, one at least; builds plain types alone.

    Raises:
        ConfigError: `text` is not YAML, or a document is no mapping.
    """
    try:
        found = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(
            "a cluster file is not valid YAML", seen=f"{path}{where}: {problem}", fix="correct that line"
        ) from error
    if not found or not all(isinstance(document, dict) for document in found):
        raise ConfigError(
            "{seen} is not a mapping of keys",
            rule="a cluster file is one",
            seen=str(path),
            fix="start with cluster_name: NAME",
        )
    return found


def placeholder_notes(text: str) -> list[str]:
    """One note per placeholder that is still in `text`."""
    # Comments are examples: only what YAML will read counts.
    live = "\n".join(line.split(" #")[0] for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = sorted({match.group(0) for match in _PLACEHOLDERS.finditer(live)})
    return [f"to do: {name} is a placeholder: put your own in before starting" for name in found]
