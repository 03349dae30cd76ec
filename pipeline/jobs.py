"""Clusters, from the outside: offline checks of the files that start one.

Owns: telling a space from a cluster file by content, and checking a Ray cluster launcher file or a
KubeRay RayJob without a cloud account. Refuses: starting machines (`ray up`, `kubectl apply` do).
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import json
import logging
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.errors import ConfigError, nearest

Kind = Literal["space", "cluster", "kuberay"]

# Values that a file ships with because only its reader can know them.
_PLACEHOLDERS = re.compile(r"(ami|fs)-0(?:0+|123456789abcdef0)\b")

# KubeRay's RayJob.spec and RayClusterSpec (v1.6). The operator itself drops unknown keys without a word.
_RAYJOB_KEYS = frozenset(
    {"activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint"}
    | {"entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata"}
    | {"preRunningDeadlineSeconds", "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes"}
    | {"submissionMode", "submitterConfig", "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished"}
)
_RAYCLUSTER_KEYS = frozenset(
    {"authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions"}
    | {"headGroupSpec", "headServiceAnnotations", "historyServerOptions", "managedBy", "networkPolicy"}
    | {"rayVersion", "suspend", "tlsOptions", "upgradeStrategy", "workerGroupSpecs"}
)
_SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")


def kind_of(path: Path) -> Kind:
    """Say by its content what `path` is: TOML is a space, YAML a Ray cluster file or a RayJob.

    Raises:
        ConfigError: it is unreadable, or none of the three.
    """
    text = _read(path)
    if path.suffix.lower() == ".toml" or (path.suffix.lower() not in {".yaml", ".yml"} and _is_toml(text)):
        return "space"
    documents = _documents(path, text)
    if any(document.get("kind") == "RayJob" for document in documents):
        return "kuberay"
    if any("cluster_name" in document for document in documents):
        return "cluster"
    raise ConfigError(
        "a file to check is a space (TOML), a cluster file (YAML with cluster_name) or a RayJob",
        seen=f"{path} with keys {', '.join(sorted(map(str, documents[0])))}",
        fix="see search_spaces/, cluster.yaml and kuberay.yaml for one of each",
    )


def check_cluster(path: Path) -> list[str]:
    """Check a Ray cluster launcher file offline, as `ray up` would before it asks the cloud.

    Returns:
        One note per thing checked, and one per thing still to be filled in.

    Raises:
        ConfigError: the first rule that the file breaks, in one line.
    """
    text = _read(path)
    config = _documents(path, text)[0]
    _check_schema(config)
    types = _check_names(config)
    _check_counts(config, types)
    notes = [
        f"schema: {len(config)} keys known to Ray {version_of('ray')}",
        f"nodes: head '{config.get('head_node_type', 'default')}', "
        f"workers {_worker_ranges(config, types)}, at most {config.get('max_workers', 2)}",
        _ask_ray(config),
        _auth_note(config),
    ]
    return notes + _placeholder_notes(text)


def check_kuberay(path: Path) -> list[str]:
    """Check the RayJobs in `path` offline: names, the cluster they run on, worker counts, auth.

    Raises:
        ConfigError: the first rule that the file breaks, in one line.
    """
    text = _read(path)
    jobs = [document for document in _documents(path, text) if document.get("kind") == "RayJob"]
    if not jobs:
        raise ConfigError("the file holds a RayJob", seen=str(path), fix="write kind: RayJob")
    return [note for job in jobs for note in _check_rayjob(job)] + _placeholder_notes(text)


def check(path: Path) -> list[str]:
    """Check a cluster file of either kind; a space is checked by `pipeline.spaces`."""
    checks: dict[str, Callable[[Path], list[str]]] = {"cluster": check_cluster, "kuberay": check_kuberay}
    kind = kind_of(path)
    if kind not in checks:
        raise ConfigError("a cluster file is YAML", seen=str(path), fix="a space is checked as a space")
    return checks[kind](path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            "the file can be read", seen=f"{path}: {reason}", fix="check the path and its permissions"
        ) from error


def _is_toml(text: str) -> bool:
    try:
        return bool(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        return False


def _documents(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(
            "a cluster file is valid YAML", seen=f"{path}{where}: {problem}", fix="correct that line"
        ) from error
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise ConfigError(
            "a cluster file is a mapping of keys", seen=str(path), fix="start with cluster_name: NAME"
        )
    return documents


def _ray_schema() -> dict[str, Any]:
    """Ray's own schema of a cluster file, found without importing Ray."""
    spec = importlib.util.find_spec("ray")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "checking a cluster file needs Ray's schema", seen="no ray", fix="pip install 'ray[default]'"
        )
    path = Path(spec.origin).parent / "autoscaler" / "ray-schema.json"
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _check_schema(config: dict[str, Any]) -> None:
    import jsonschema

    validator = jsonschema.Draft7Validator(_ray_schema())
    errors = sorted(validator.iter_errors(config), key=lambda error: [str(part) for part in error.path])
    if errors:
        raise _schema_error(errors[0])


def _schema_error(error: Any) -> ConfigError:
    """Turn a jsonschema error, which quotes half the file, into our one line."""
    where = ".".join(str(part) for part in error.absolute_path) or "the top level"
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(set(error.instance) - set(known))[0]
        return ConfigError(f"{where} has only keys that Ray knows", seen=unknown, fix=nearest(unknown, known))
    if error.validator == "required":
        missing = error.message.split("'")[1]
        return ConfigError(f"{where} has the key {missing}", seen="none", fix=f"add {missing}:")
    if "resources" in error.absolute_path and error.validator == "type":
        return ConfigError(
            f"{where}: a node's resources are whole numbers",
            seen=error.instance,
            fix="give the whole machine here and share it with --gpus-per-trial",
        )
    rule = f"{error.validator} {error.validator_value}"
    return ConfigError(f"{where} fits Ray's schema", seen=error.instance, fix=f"the schema wants {rule}")


def _check_names(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    types: dict[str, dict[str, Any]] = config.get("available_node_types", {})
    head = config.get("head_node_type")
    if types and head is None:
        raise ConfigError(
            "head_node_type says which of available_node_types is the head", seen="none", fix="add it"
        )
    if head is not None and head not in types:
        raise ConfigError(
            "head_node_type is one of available_node_types", seen=head, fix=nearest(str(head), types)
        )
    return types


def _check_counts(config: Mapping[str, Any], types: Mapping[str, Mapping[str, Any]]) -> None:
    most = config.get("max_workers", 2)
    for name, node in types.items():
        low = node.get("min_workers", 0)
        high = node.get("max_workers", 0 if name == config.get("head_node_type") else most)
        if not 0 <= low <= high:
            raise ConfigError(
                f"available_node_types.{name}: 0 <= min_workers <= max_workers",
                seen=f"min_workers {low}, max_workers {high}",
                fix=f"raise max_workers of {name} to {low}" if low > 0 else "use 0 or more",
            )
    total = sum(node.get("min_workers", 0) for node in types.values())
    if total > most:
        raise ConfigError(
            "the sum of all min_workers is at most max_workers",
            seen=f"{total} > {most}",
            fix=f"raise max_workers to {total}, or lower a min_workers",
        )


def _worker_ranges(config: Mapping[str, Any], types: Mapping[str, Mapping[str, Any]]) -> str:
    most = config.get("max_workers", 2)
    ranges = [
        f"{name} {node.get('min_workers', 0)}-{node.get('max_workers', most)}"
        for name, node in types.items()
        if name != config.get("head_node_type")
    ]
    return ", ".join(ranges) or "none"


def _ask_ray(config: dict[str, Any]) -> str:
    """Ray's own last word on the file with its defaults filled in; a note where Ray moved its door."""
    try:
        # Private, hence lazily and behind the checks above, which stand without it.
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError:
        return "ray: its validator is not where it was; checked by its schema only"
    log = logging.getLogger("ray.autoscaler._private.util")
    level, log.level = log.level, logging.WARNING  # it logs every default that it fills in
    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as error:  # ValueError, RuntimeError, jsonschema's and click's own
        lines = str(error).splitlines() or [type(error).__name__]
        raise ConfigError("Ray accepts the file", seen=lines[0], fix="correct that key") from error
    finally:
        log.level = level
    return "ray: its own validator accepts the file"


def version_of(package: str) -> str | None:
    """The installed version of a distribution, without importing it; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _auth_note(config: Mapping[str, Any]) -> str:
    keys = ("head_start_ray_commands", "worker_start_ray_commands")
    open_keys = [key for key in keys if not _has(config.get(key, []), "RAY_AUTH_MODE=token")]
    if open_keys:
        return f"warning: no RAY_AUTH_MODE=token in {', '.join(open_keys)}: who reaches Ray can run code"
    return "auth: head and workers start with RAY_AUTH_MODE=token"


def _has(commands: Iterable[object], word: str) -> bool:
    return any(word in str(command) for command in commands)


def _placeholder_notes(text: str) -> list[str]:
    # Comments are examples: only what YAML will read counts.
    live = "\n".join(line.split(" #")[0] for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = sorted({match.group(0) for match in _PLACEHOLDERS.finditer(live)})
    return [f"to do: {name} is a placeholder: put your own in before starting" for name in found]


def _check_rayjob(job: Mapping[str, Any]) -> list[str]:
    name = (job.get("metadata") or {}).get("name", "RayJob")
    if job.get("apiVersion") != "ray.io/v1":
        raise ConfigError(
            f"{name}: apiVersion is ray.io/v1", seen=job.get("apiVersion"), fix="write apiVersion: ray.io/v1"
        )
    spec = _keys(f"{name}.spec", job.get("spec"), _RAYJOB_KEYS)
    if ("rayClusterSpec" in spec) == ("clusterSelector" in spec):
        raise ConfigError(
            f"{name}.spec has exactly one of rayClusterSpec and clusterSelector",
            seen="both" if "rayClusterSpec" in spec else "neither",
            fix="keep one",
        )
    mode = spec.get("submissionMode", "K8sJobMode")
    if mode not in _SUBMISSION_MODES:
        raise ConfigError(
            f"{name}.spec.submissionMode is one of {', '.join(_SUBMISSION_MODES)}",
            seen=mode,
            fix=nearest(str(mode), _SUBMISSION_MODES),
        )
    if not spec.get("entrypoint") and mode != "InteractiveMode":
        raise ConfigError(f"{name}.spec has an entrypoint", seen="none", fix="entrypoint: gansweep run ...")
    notes = [f"rayjob {name}: keys and {mode} known to KubeRay v1.6"]
    return notes + (_check_raycluster(name, spec["rayClusterSpec"]) if "rayClusterSpec" in spec else [])


def _check_raycluster(name: str, cluster: object) -> list[str]:
    spec = _keys(f"{name}.spec.rayClusterSpec", cluster, _RAYCLUSTER_KEYS)
    for group in spec.get("workerGroupSpecs") or []:
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if not 0 <= low <= group.get("replicas", low) <= high:
            raise ConfigError(
                f"{name}: worker group {group.get('groupName')}: minReplicas <= replicas <= maxReplicas",
                seen=f"{low}, {group.get('replicas', low)}, {high}",
                fix="put them in order",
            )
    if (spec.get("authOptions") or {}).get("mode") != "token":
        return [f"warning: {name}: no authOptions.mode token: any pod that reaches Ray can run code"]
    return [f"auth: {name} starts with authOptions.mode token"]


def _keys(where: str, value: object, known: Iterable[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is a mapping of keys", seen=value, fix="indent its keys below it")
    for key in value:
        if key not in set(known):
            raise ConfigError(
                f"{where} has only keys that KubeRay knows", seen=key, fix=nearest(str(key), known)
            )
    return value
