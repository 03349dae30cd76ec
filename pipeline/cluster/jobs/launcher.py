"""Offline checks of a Ray cluster launcher file (`ray up`); not of what only the cloud knows."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pipeline.cluster._compat import cluster_file_schema, validate_cluster_file
from pipeline.cluster.jobs.schema import Yaml, check_counts, check_schema
from pipeline.cluster.versions import version_of
from pipeline.errors import ConfigError, nearest


def check_launcher(config: Yaml) -> list[str]:
    """Check a file as `ray up` would before it asks the cloud; returns one note per thing checked.

    Raises:
        ConfigError: the first rule that the file breaks, in one line.
    """
    check_schema(config, _ray_schema(), "Ray")
    workers = _check_workers(config, _check_names(config))
    return [
        f"schema: {len(config)} keys known to Ray {version_of('ray')}",
        f"nodes: head '{config.get('head_node_type', 'default')}', "
        f"workers {workers}, at most {config.get('max_workers', 2)}",
        _ask_ray(config),
        _auth_note(config),
    ]


def _ray_schema() -> Yaml:
    path = cluster_file_schema()
    if path is None:
        raise ConfigError(
            "Ray's schema of a cluster file is not found",
            rule="checking one needs Ray on this machine",
            fix="pip install 'ray[default]'",
        )
    schema: Yaml = json.loads(path.read_text(encoding="utf-8"))
    return schema


def _check_names(config: Yaml) -> Mapping[str, Yaml]:
    types: Mapping[str, Yaml] = config.get("available_node_types", {})
    head = config.get("head_node_type")
    if types and head is None:
        raise ConfigError(
            "head_node_type is missing",
            rule="it must name the head's type among available_node_types",
            fix="add it",
        )
    if head is not None and head not in types:
        raise ConfigError(
            "head_node_type {seen} is unknown",
            rule="it must be one of available_node_types",
            seen=head,
            fix=nearest(str(head), types),
        )
    return types


def _check_workers(config: Yaml, types: Mapping[str, Yaml]) -> str:
    """The counts of each type are possible; returns those of the workers, for a note."""
    most, total, ranges = config.get("max_workers", 2), 0, list[str]()
    for name, node in types.items():
        is_head = name == config.get("head_node_type")
        low, high = node.get("min_workers", 0), node.get("max_workers", 0 if is_head else most)
        check_counts(f"available_node_types.{name}", {"min_workers": low, "max_workers": high})
        total += low
        ranges += [] if is_head else [f"{name} {low}-{high}"]
    if total > most:
        raise ConfigError(
            f"the sum of all min_workers, {total}, is above max_workers {most}",
            fix=f"raise max_workers to {total}, or lower a min_workers",
        )
    return ", ".join(ranges) or "none"


def _ask_ray(config: Yaml) -> str:
    """Let Ray's own validator check the file, defaults filled in; a note where that cannot be imported."""
    try:
        validate_cluster_file(config)
    except ImportError:
        return "ray: its validator cannot be imported; checked by its schema only"
    except Exception as error:  # ValueError, RuntimeError, jsonschema's and click's own
        lines = str(error).splitlines() or [type(error).__name__]
        raise ConfigError("Ray does not accept the file", seen=lines[0], fix="correct that key") from error
    return "ray: its own validator accepts the file"


def _auth_note(config: Yaml) -> str:
    keys = ("head_start_ray_commands", "worker_start_ray_commands")
    open_keys = [key for key in keys if "RAY_AUTH_MODE=token" not in str(config.get(key))]
    if open_keys:
        return f"warning: no RAY_AUTH_MODE=token in {', '.join(open_keys)}: whoever reaches Ray can run code"
    return "auth: head and workers start with RAY_AUTH_MODE=token"
