"""Offline checks of a KubeRay RayJob: by KubeRay's schema, and of what no schema can express.

Not of Kubernetes' own part, beyond the outline of a pod.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.cluster.jobs.schema import Yaml, check_counts, check_schema, newer_keys
from pipeline.cluster.versions import version_of
from pipeline.errors import ConfigError, nearest
from pipeline.search.resources import check_gpus_per_trial

SCHEMA = Path(__file__).with_name("rayjob-v1.7.json")
_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_UNITS |= {f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", start=1)}


def check_rayjob(job: Yaml) -> list[str]:
    """Check a RayJob; returns one note per thing checked.

    Raises:
        ConfigError: the first rule that it breaks, in one line.
    """
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    metadata = job.get("metadata")
    name = str(metadata.get("name", "RayJob")) if isinstance(metadata, dict) else "RayJob"
    check_schema(job, schema, "KubeRay", name)
    spec: Yaml = job["spec"]
    mode = spec.get("submissionMode", "K8sJobMode")
    _check_submission(f"{name}.spec", spec, mode)
    _check_deletion(f"{name}.spec", spec)
    notes = [f"schema: {name} fits {schema['title']}, submitted by {mode}"]
    newer = newer_keys(job, schema)
    if newer:
        notes.append(f"note: {name} needs KubeRay v1.7 for {', '.join(newer)}: v1.6 drops them silently")
    return notes + (_check_cluster(name, spec) if "rayClusterSpec" in spec else [])


def _check_submission(where: str, spec: Yaml, mode: str) -> None:
    if not spec.get("entrypoint") and mode != "InteractiveMode":
        raise ConfigError(f"{where} has no entrypoint", fix="entrypoint: gansweep run ...")
    for key in ("clusterSelector", "submitterPodTemplate", "submitterConfig"):
        if key in spec and mode == "SidecarMode":
            raise ConfigError(
                f"{where} has {key} and submissionMode {mode}", rule=f"{mode} takes no {key}", fix="keep one"
            )


def _check_deletion(where: str, spec: Yaml) -> None:
    """What becomes of the cluster afterwards: the operator accepts only one way of writing it."""
    shuts, strategy = spec.get("shutdownAfterJobFinishes", False), spec.get("deletionStrategy")
    if spec.get("ttlSecondsAfterFinished") and not shuts:
        raise ConfigError(
            f"{where} has ttlSecondsAfterFinished {{seen}} without shutdownAfterJobFinishes",
            rule="ttlSecondsAfterFinished needs shutdownAfterJobFinishes",
            seen=spec["ttlSecondsAfterFinished"],
            fix="add shutdownAfterJobFinishes: true",
        )
    if strategy is None:
        return
    old, rules = {"onSuccess", "onFailure"} & set(strategy), "deletionRules" in strategy
    if rules == bool(old) or len(old) == 1 or (rules and shuts):
        raise ConfigError(
            f"{where}.deletionStrategy has {{seen}}",
            rule="it must have deletionRules alone, or both of onSuccess and onFailure",
            seen=", ".join([*sorted(strategy), *(["shutdownAfterJobFinishes"] if shuts else [])]),
            fix="keep deletionRules",
        )


def _check_cluster(name: str, job: Yaml) -> list[str]:
    spec: Yaml = job["rayClusterSpec"]
    workers = spec.get("workerGroupSpecs", [])
    names = [group["groupName"] for group in workers]
    twice = sorted({group for group in names if names.count(group) > 1})
    if twice:
        problem = f"{name} has two worker groups of the name {{seen}}"
        raise ConfigError(problem, seen=twice[0], fix="rename one")
    for group in workers:
        low, high = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        counts = {"minReplicas": low, "replicas": group.get("replicas", low), "maxReplicas": high}
        check_counts(f"{name}: worker group {group['groupName']}", counts)
    groups = {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in workers}}
    for group_name, group in groups.items():
        _check_pod(f"{name}: {group_name}", group["template"]["spec"])
    _check_gpus(name, job, groups)
    return _cluster_notes(name, spec, workers)


def _check_pod(where: str, pod: Yaml) -> None:
    """A pod's amounts are possible, and it has the volumes that its containers mount."""
    volumes = [volume["name"] for volume in pod.get("volumes", ())]
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in volumes:
                add = f"add volumes: - name: {mount['name']}"
                raise ConfigError(
                    f"{where}: {container['name']} mounts {{seen}}, which is no volume of its pod",
                    seen=mount["name"],
                    fix=nearest(mount["name"], volumes) if volumes else add,
                )
        _check_amounts(f"{where}: {container['name']}", container.get("resources", {}))


def _check_amounts(where: str, resources: Yaml) -> None:
    """Requests within limits; GPUs whole, their requests equal to the limits, as Kubernetes wants them."""
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for kind in {**limits, **requests}:
        least, most = amount(requests.get(kind, 0)), amount(limits.get(kind, math.inf))
        if kind.endswith("/gpu"):
            for given in (limits.get(kind, 0), requests.get(kind, 0)):
                if not amount(given).is_integer():
                    raise ConfigError(
                        f"{where}: {kind} = {{seen}} is not a whole number",
                        seen=given,
                        fix="share a GPU with --gpus-per-trial",
                    )
            if kind in requests and least != most:
                raise ConfigError(
                    f"{where}: {kind} differs between request and limit",
                    seen=f"{requests[kind]} and {limits.get(kind, 'no limit')}",
                    fix=f"write limits: {{{kind}: {requests[kind]}}}",
                )
        if least > most:
            raise ConfigError(
                f"{where} requests {kind} {{seen}}, above its limit {limits[kind]}",
                seen=requests[kind],
                fix="raise the limit",
            )


def _check_gpus(name: str, job: Yaml, groups: Mapping[str, Yaml]) -> None:
    """Some pod has the GPUs that are asked for; a trial has one at most."""
    asked = re.findall(r"--gpus-per-trial[=\s]+['\"]?(\d*\.?\d+)", job.get("entrypoint", ""))
    per_trial = float(asked[-1]) if asked else 0.0
    check_gpus_per_trial(per_trial)
    most = max(gpus_of(group) for group in groups.values())
    demands = {"entrypointNumGpus": job.get("entrypointNumGpus", 0.0), "--gpus-per-trial": per_trial}
    for option, count in demands.items():
        if count > most:
            raise ConfigError(
                f"{name}: {option} {count:g} is more than any pod has",
                rule=f"no pod has more than {most:g} GPU",
                fix="add limits: {nvidia.com/gpu: N} to a worker group, or ask for less",
            )


def gpus_of(group: Yaml) -> float:
    """GPUs of one pod of a group, as Ray will see them."""
    params, resources = group.get("rayStartParams", {}), group.get("resources", {})
    for text in (resources.get("GPU"), params.get("num-gpus")):
        with suppress(TypeError, ValueError):
            return float(text)
    limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return sum(amount(value) for kind, value in limits.items() if kind.endswith("/gpu"))


def amount(quantity: str | float) -> float:
    """A quantity of Kubernetes as a number: `500m` is 0.5, `8Gi` is 8 times 2**30."""
    if not isinstance(quantity, str):
        return float(quantity)
    number = quantity.rstrip("numkMGTPEi")
    return float(number) * _UNITS.get(quantity[len(number) :], 1.0)


def _cluster_notes(name: str, spec: Yaml, workers: list[Yaml]) -> list[str]:
    auth = spec.get("authOptions")
    if auth is not None and auth.get("mode", "token") == "token":
        notes = [f"auth: {name} starts with authOptions.mode token"]
    else:
        notes = [f"warning: {name}: no authOptions.mode token: any pod that reaches Ray can run code"]
    wanted, here = spec.get("rayVersion"), version_of("ray")
    if wanted and here and wanted != here:
        notes.append(f"warning: {name}: rayVersion {wanted}, where this gansweep is pinned to ray {here}")
    started = [group.get("replicas", group.get("minReplicas", 0)) for group in workers]
    if not spec.get("enableInTreeAutoscaling", False) and not any(started):
        notes.append(f"warning: {name}: no worker ever starts: replicas 0 and no enableInTreeAutoscaling")
    return notes
