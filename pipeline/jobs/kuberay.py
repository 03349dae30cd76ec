"""A KubeRay RayJob, checked offline.

Owns: the keys it knows, the cluster it runs on, worker counts, auth. Refuses: Kubernetes' own part (pods).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, nearest
from pipeline.jobs.reading import documents, placeholder_notes, read

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
_GROUP_KEYS = frozenset({"labels", "rayStartParams", "resources", "template"})
_HEAD_KEYS = _GROUP_KEYS | {"enableIngress", "headService", "serviceType"}
_WORKER_KEYS = _GROUP_KEYS | {
    *("groupName", "idleTimeoutSeconds", "maxReplicas", "minReplicas", "numOfHosts", "replicas"),
    *("scaleStrategy", "suspend"),
}
_COUNTS = ("activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")
_SUBMISSION_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")


def check_kuberay(path: Path) -> list[str]:
    """Check the RayJobs in `path` offline: names, the cluster they run on, worker counts, auth.

    Raises:
        ConfigError: the first rule that the file breaks, in one line.
    """
    text = read(path)
    jobs = [document for document in documents(path, text) if document.get("kind") == "RayJob"]
    if not jobs:
        raise ConfigError("the file holds a RayJob", seen=str(path), fix="write kind: RayJob")
    return [note for job in jobs for note in _check_rayjob(job)] + placeholder_notes(text)


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
    for key in _COUNTS:
        _whole(f"{name}.spec.{key}", spec.get(key, 0))
    if not spec.get("entrypoint") and mode != "InteractiveMode":
        raise ConfigError(f"{name}.spec has an entrypoint", seen="none", fix="entrypoint: gansweep run ...")
    notes = [f"rayjob {name}: keys and {mode} known to KubeRay v1.6"]
    return notes + (_check_raycluster(name, spec["rayClusterSpec"]) if "rayClusterSpec" in spec else [])


def _check_raycluster(name: str, cluster: object) -> list[str]:
    spec = _keys(f"{name}.spec.rayClusterSpec", cluster, _RAYCLUSTER_KEYS)
    _check_group(f"{name}: head", spec.get("headGroupSpec"), _HEAD_KEYS)
    for group in spec.get("workerGroupSpecs") or []:
        _check_group(f"{name}: worker group", group, _WORKER_KEYS)
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


def _check_group(where: str, group: object, known: Iterable[str]) -> None:
    """Keys of a group, and its GPUs: Kubernetes lends whole ones, and asks for as many as the limit says."""
    spec = _keys(where, group, known)
    pod = (spec.get("template") or {}).get("spec") or {}
    for container in pod.get("containers") or []:
        for amounts in (container.get("resources") or {}).values():
            for resource, amount in (amounts if isinstance(amounts, dict) else {}).items():
                if resource.endswith("/gpu"):
                    _whole(f"{where}: {resource} of {container.get('name')}", amount)


def _whole(what: str, value: object) -> None:
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal():
        raise ConfigError(
            f"{what} is a whole number from 0",
            seen=value,
            fix="share a GPU with --gpus-per-trial" if "/gpu" in what else "correct it",
        )


def _keys(where: str, value: object, known: Iterable[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is a mapping of keys", seen=value, fix="indent its keys below it")
    for key in value:
        if key not in set(known):
            raise ConfigError(
                f"{where} has only keys that KubeRay knows", seen=key, fix=nearest(str(key), known)
            )
    return value
