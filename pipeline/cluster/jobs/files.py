"""The offline check of a cluster's file: a cluster launcher file of Ray's, or a RayJob of KubeRay's."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.cluster.jobs.kuberay import check_rayjob
from pipeline.cluster.jobs.launcher import check_launcher
from pipeline.cluster.jobs.schema import Yaml
from pipeline.errors import ConfigError

# Values of the example files that only their user can know.
_PLACEHOLDERS = re.compile(r"(ami|fs)-0(?:0+|123456789abcdef0)\b")


def check_cluster_file(path: Path) -> list[str]:
    """Check a file offline; returns a note per thing checked, and one per thing still to be filled in.

    Raises:
        ConfigError: the file cannot be read or is of neither kind, or the first rule that it breaks.
    """
    text = _read(path)
    found = _read_documents(path, text)
    jobs = [document for document in found if document.get("kind") == "RayJob"]
    clusters = [document for document in found if "cluster_name" in document]
    if not jobs and not clusters:
        raise ConfigError(
            "a file of unknown kind",
            rule="a space (TOML), a cluster file (YAML with cluster_name) or a RayJob can be checked",
            seen=f"{path} with keys {', '.join(sorted(map(str, found[0])))}",
            fix="see search_spaces/, cluster.yaml and kuberay.yaml for one of each",
        )
    notes = [note for job in jobs for note in check_rayjob(job)] if jobs else check_launcher(clusters[0])
    # Comments are examples: only what YAML will read counts.
    live = "\n".join(line.split(" #")[0] for line in text.splitlines() if not line.lstrip().startswith("#"))
    names = sorted({match.group(0) for match in _PLACEHOLDERS.finditer(live)})
    return notes + [f"to do: {name} is a placeholder: put your own in before starting" for name in names]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        fix = "check the path and its permissions"
        raise ConfigError("a file cannot be read", seen=f"{path}: {reason}", fix=fix) from error


def _read_documents(path: Path, text: str) -> Sequence[Yaml]:
    """The YAML documents in `text`, one at least: as Kubernetes reads them, in the types of JSON alone."""
    try:
        loaded = [document for document in yaml.safe_load_all(text) if document is not None]
        found = json.loads(json.dumps(loaded, default=str))
    except (yaml.YAMLError, TypeError, ValueError) as error:  # an impossible date, a list in itself
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        seen = f"{path}{where}: {problem}"
        raise ConfigError("a cluster file is not valid YAML", seen=seen, fix="correct that line") from error
    if not found or not all(isinstance(document, dict) for document in found):
        raise ConfigError(
            "{seen} is not a mapping of keys",
            rule="a cluster file is one",
            seen=str(path),
            fix="start with cluster_name: NAME",
        )
    documents: Sequence[Yaml] = found
    return documents
