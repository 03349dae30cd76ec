"""KubeRay's RayJob offline: the shipped file passes, every misspelt key and impossible number is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipeline.cluster.jobs import kuberay
from pipeline.cluster.jobs.files import check_cluster_file
from pipeline.cluster.jobs.kuberay import check_kuberay
from pipeline.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
SHIPPED: dict[str, Any] = next(yaml.safe_load_all((ROOT / "kuberay.yaml").read_text(encoding="utf-8")))
GROUP = "spec.rayClusterSpec.workerGroupSpecs.0"
POD = f"{GROUP}.template.spec"
WORKER = f"{POD}.containers.0"


def checked(tmp_path: Path, job: dict[str, Any]) -> list[str]:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    return check_kuberay(path)


def changed(path: str, value: object) -> dict[str, Any]:
    """The shipped job with one value, or without it where `value` is None; `path` is dotted."""
    job = copy.deepcopy(SHIPPED)
    *parents, last = path.split(".")
    inner: Any = job
    for key in parents:
        inner = inner[int(key) if key.isdigit() else key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return job


def test_the_shipped_rayjob_passes() -> None:
    assert check_cluster_file(ROOT / "kuberay.yaml") == [
        "schema: gansweep fits RayJob of KubeRay v1.7.0, submitted by K8sJobMode",
        "auth: gansweep starts with authOptions.mode token",
    ]


def test_the_schema_is_one_and_travels_with_the_wheel() -> None:
    schema = json.loads(kuberay.SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "v1.7.0" in schema["title"]
    assert (
        f'"pipeline.cluster.jobs.files" = ["{kuberay.SCHEMA.name}"]' in (ROOT / "pyproject.toml").read_text()
    )


def keys(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every key of the file whose name is a rule's, with the way to it; names of the user's own left out."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from keys(item, (*path, index))
    elif isinstance(value, dict):
        for key, inner in value.items():
            if path[-1:] not in (("limits",), ("requests",), ("rayStartParams",)):
                yield path, key
            yield from keys(inner, (*path, key))


def typos(key: str) -> Iterator[str]:
    """A letter lost, doubled, changed; two swapped; another case; a plural."""
    middle = len(key) // 2
    yield key[:middle] + key[middle + 1 :]
    yield key[:middle] + key[middle] + key[middle:]
    yield key[:middle] + ("x" if key[middle] != "x" else "y") + key[middle + 1 :]
    yield key[: middle - 1] + key[middle] + key[middle - 1] + key[middle + 1 :]
    yield key.swapcase()
    yield key[:-1] if key.endswith("s") else key + "s"


@pytest.mark.parametrize(("path", "key"), sorted({(path, key) for path, key in keys(SHIPPED)}, key=str))
def test_every_typo_of_one_key_is_refused(tmp_path: Path, path: tuple[str | int, ...], key: str) -> None:
    for typo in {*typos(key)} - {key}:
        job = copy.deepcopy(SHIPPED)
        inner: Any = job
        for part in path:
            inner = inner[part]
        inner[typo] = inner.pop(key)
        with pytest.raises(ConfigError) as caught:
            checked(tmp_path, job)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec.submissionMod", "HTTPMode", r"got submissionMod; did you mean 'submissionMode'\?"),
        ("spec.submissionMode", "HttpMode", r"got HttpMode; did you mean 'HTTPMode'\?"),
        ("spec.rayClusterSpec", None, r"exactly one of rayClusterSpec and clusterSelector; got neither"),
        ("spec.clusterSelector", {"a": "b"}, r"exactly one of .*; got both"),
        ("spec.entrypoint", None, r"has an entrypoint"),
        ("spec.rayClusterSpec.workerGroupSpec", [], r"did you mean 'workerGroupSpecs'\?"),
        ("apiVersion", "ray.io/v1alpha1", r"gansweep.apiVersion is one of ray.io/v1; got ray.io/v1alpha1"),
        ("metadata.name", "My_Job", r"metadata.name is a name of small letters, digits and dashes; got My_J"),
        ("metadata", "text", r"RayJob.metadata is a mapping of keys; got text"),
        ("spec", "text", r"gansweep.spec is a mapping of keys; got text"),
        ("spec.backoffLimit", -1, r"gansweep.spec.backoffLimit is a whole number from 0; got -1"),
        ("spec.backoffLimit", True, r"backoffLimit is a whole number; got True"),
        ("spec.shutdownAfterJobFinishes", "yes", r"AfterJobFinishes is true or false; got yes"),
        ("spec.shutdownAfterJobFinishes", False, r"ttlSecondsAfterFinished needs shutdownAfterJobFinishes"),
        ("spec.preRunningDeadlineSeconds", 0, r"preRunningDeadlineSeconds is a whole number from 1; got 0"),
        (
            "spec.deletionStrategy",
            {},
            r"has deletionRules alone, or both of .*; got shutdownAfterJobFinishes",
        ),
        ("spec.deletionStrategy", {"onSuccess": {"policy": "DeletSelf"}}, r"did you mean 'DeleteSelf'\?"),
        ("spec.rayClusterSpec.authOptions.mode", "tokens", r"is one of disabled, token; got tokens"),
        ("spec.rayClusterSpec.autoscalerOptions", {"upscalingMode": "Fast"}, r"Conservative; got Fast"),
        ("spec.rayClusterSpec.autoscalerOptions", {"idleTimeout": 5}, r"did you mean 'idleTimeoutSeconds'"),
        ("spec.rayClusterSpec.gcsFaultToleranceOptions", {"redisAdress": "r"}, r"mean 'redisAddress'\?"),
        ("spec.submitterConfig", {"backofLimit": 1}, r"mean 'backoffLimit'\?"),
        ("spec.submissionMode", "SidecarMode", None),
        (f"{GROUP}.maxReplica", 3, r"gpu has only keys that KubeRay knows; got maxReplica; .*'maxReplicas'"),
        (f"{GROUP}.replicas", 9, r"worker group gpu: minReplicas <= replicas <= maxReplicas; got 0, 9, 4"),
        (f"{GROUP}.numOfHosts", 0, r"gpu.numOfHosts is a whole number from 1; got 0"),
        (f"{GROUP}.rayStartParams", {"num-cpus": 0}, r'num-cpus is a text; got 0; put it in quotes: "0"'),
        (f"{POD}.containers", [], r"containers has at least 1 item; got \[\]"),
        (f"{POD}.volumeMount", [], None),
        (f"{POD}.volumes", None, r"gpu: ray-worker mounts a volume of its pod; got runs; add volumes"),
        (f"{WORKER}.image", None, r"ray-worker has the key image; got none; add image:"),
        (f"{WORKER}.volumeMounts", [{"name": "runs"}], r"runs has the key mountPath"),
        (f"{WORKER}.volumeMounts", [{"name": "run", "mountPath": "/r"}], r"got run; did you mean 'runs'\?"),
        (
            f"{WORKER}.resources.limits.memory",
            "24GB",
            r"memory is an amount such as 500m, 2 or 8Gi; got 24GB",
        ),
        (f"{WORKER}.resources.limits.memory", "20Gi", r"requests lie within limits; got memory 24Gi of 20Gi"),
        (f"{WORKER}.resources.requests.cpu", "9000m", r"requests lie within limits; got cpu 9000m of 8"),
        (f"{WORKER}.resources.requests.cpu", "-1", r"cpu is an amount such as .*; got -1"),
        (f"{WORKER}.resources.limits", {"nvidia.com/gpu": 0.5}, r"a whole number; got 0.5; share a GPU with"),
        (
            f"{WORKER}.resources.limits",
            {"nvidia.com/gpu": 2},
            r"one amount as request and limit; got 1 and 2",
        ),
        (f"{WORKER}.resources.limits", {"memory": "24Gi"}, r"got 1 and no limit; write limits"),
        (
            "spec.entrypointNumGpus",
            2,
            r"entrypointNumGpus is what a pod .* got 2, where no pod has more than 1",
        ),
        (
            "spec.entrypoint",
            "gansweep run --gpus-per-trial=2",
            r"trains on one GPU.* got --gpus-per-trial 2;",
        ),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, path: str, value: object, message: str | None) -> None:
    job = changed(path, value)
    if message is None:
        checked(tmp_path, job)
        return
    with pytest.raises(ConfigError, match=message) as caught:
        checked(tmp_path, job)
    assert "\n" not in str(caught.value)


def test_two_groups_of_one_name_are_refused(tmp_path: Path) -> None:
    job = copy.deepcopy(SHIPPED)
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"] *= 2
    with pytest.raises(ConfigError, match="each worker group has its own name; got gpu"):
        checked(tmp_path, job)


def test_a_sidecar_has_no_submitter(tmp_path: Path) -> None:
    job = changed("spec.submissionMode", "SidecarMode")
    job["spec"]["submitterConfig"] = {"backoffLimit": 1}
    with pytest.raises(ConfigError, match="SidecarMode goes without submitterConfig"):
        checked(tmp_path, job)


@pytest.mark.parametrize(
    ("path", "value", "note"),
    [
        ("spec.rayClusterSpec.rayVersion", "2.9.0", "rayVersion 2.9.0, where this gansweep is pinned to ray"),
        ("spec.rayClusterSpec.authOptions", None, "no authOptions.mode token: any pod that reaches Ray"),
        ("spec.rayClusterSpec.authOptions", {}, "auth: gansweep starts with authOptions.mode token"),
        ("spec.rayClusterSpec.enableInTreeAutoscaling", False, "no worker ever starts: replicas 0"),
        (f"{GROUP}.priority", 3, "note: gansweep needs KubeRay v1.7 for priority"),
        ("spec.rayClusterSpec.tlsOptions", {"enabled": True}, "needs KubeRay v1.7 for tlsOptions"),
    ],
)
def test_what_is_worth_knowing_is_told(tmp_path: Path, path: str, value: object, note: str) -> None:
    assert any(note in said for said in checked(tmp_path, changed(path, value)))


def test_what_kubernetes_may_add_passes(tmp_path: Path) -> None:
    checked(tmp_path, changed(f"{POD}.somethingBrandNew", {"of": "Kubernetes"}))


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", 0.5), ("2", 2), (2, 2), ("8Gi", 8 * 2**30), ("1e3", 1000), ("1.5k", 1500), ("3E", 3e18)],
)
def test_amounts(text: object, number: float) -> None:
    assert kuberay.amount(text) == pytest.approx(number)


@pytest.mark.parametrize("change", [{"resources": {"GPU": "4"}}, {"rayStartParams": {"num-gpus": "4"}}])
def test_a_groups_own_word_for_its_gpus_counts(change: dict[str, Any]) -> None:
    group = SHIPPED["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert kuberay.gpus_of(group) == 1
    assert kuberay.gpus_of({**group, **change}) == 4
