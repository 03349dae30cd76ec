"""KubeRay's RayJob offline: the shipped file passes, each misspelt key and impossible number is refused."""

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
from pipeline.cluster.jobs.kuberay import check_rayjob
from pipeline.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
SHIPPED: dict[str, Any] = next(yaml.safe_load_all((ROOT / "kuberay.yaml").read_text(encoding="utf-8")))
GROUP = "spec.rayClusterSpec.workerGroupSpecs.0"
POD = f"{GROUP}.template.spec"
WORKER = f"{POD}.containers.0"
SCHEMA_NOTE = "schema: gansweep fits RayJob of KubeRay v1.7.0, submitted by {}"
NO_CONDITION = {"policy": "DeleteSelf", "condition": {"ttlSeconds": 5}}
AUTH_NOTE = "auth: gansweep starts with authOptions.mode token"


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
    assert check_cluster_file(ROOT / "kuberay.yaml") == [SCHEMA_NOTE.format("K8sJobMode"), AUTH_NOTE]


def test_the_schema_is_valid_and_lies_in_the_package() -> None:
    schema = json.loads(kuberay.SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "v1.7.0" in schema["title"]
    assert kuberay.SCHEMA.parent == Path(kuberay.__file__).parent, "what lies there is part of the wheel"


def keys(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every key that a schema names, with the path to it; names that the user chooses are left out."""
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
def test_every_typo_of_one_key_is_refused(path: tuple[str | int, ...], key: str) -> None:
    for typo in {*typos(key)} - {key}:
        job = copy.deepcopy(SHIPPED)
        inner: Any = job
        for part in path:
            inner = inner[part]
        inner[typo] = inner.pop(key)
        with pytest.raises(ConfigError) as caught:
            check_rayjob(job)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec.submissionMod", "HTTPMode", r"key submissionMod, .*; did you mean 'submissionMode'\?"),
        ("spec.submissionMode", "HttpMode", r"submissionMode = HttpMode is unknown .*; .* 'HTTPMode'\?"),
        ("spec.rayClusterSpec", None, r"has neither of rayClusterSpec and clusterSelector"),
        ("spec.clusterSelector", {"a": "b"}, r"has both of rayClusterSpec and clusterSelector"),
        ("spec.entrypoint", None, r"has no entrypoint"),
        ("spec.rayClusterSpec.workerGroupSpec", [], r"did you mean 'workerGroupSpecs'\?"),
        ("apiVersion", "ray.io/v1alpha1", r"gansweep.apiVersion = ray.io/v1alpha1 is unknown"),
        ("metadata.name", "My_Job", r"metadata.name = My_Job is wrong \(it must be a name of small letters"),
        ("metadata", "text", r"RayJob.metadata = text is not a mapping of keys"),
        ("spec", "text", r"gansweep.spec = text is not a mapping of keys"),
        (
            "spec.backoffLimit",
            -1,
            r"backoffLimit = -1 is out of range \(it must be a whole number of at least 0\)",
        ),
        ("spec.backoffLimit", True, r"backoffLimit = True is not a whole number"),
        ("spec.shutdownAfterJobFinishes", "yes", r"AfterJobFinishes = yes is not true or false"),
        ("spec.shutdownAfterJobFinishes", False, r"ttlSecondsAfterFinished 60 without shutdownAfterJob"),
        ("spec.preRunningDeadlineSeconds", 0, r"preRunningDeadlineSeconds = 0 is out of range"),
        (
            "spec.deletionStrategy",
            {},
            r"deletionStrategy has shutdownAfterJobFinishes \(.*deletionRules alone",
        ),
        ("spec.deletionStrategy", {"onSuccess": {"policy": "DeletSelf"}}, r"did you mean 'DeleteSelf'\?"),
        (
            "spec",
            {
                "entrypoint": "x",
                "clusterSelector": {"a": "b"},
                "deletionStrategy": {"deletionRules": [NO_CONDITION]},
            },
            r"deletionRules.0.condition has neither of jobStatus and jobDeploymentStatus",
        ),
        ("spec.rayClusterSpec.authOptions.mode", "tokens", r"tokens is unknown \(.* disabled, token\)"),
        ("spec.rayClusterSpec.autoscalerOptions", {"upscalingMode": "Fast"}, r"= Fast is unknown .*Conserv"),
        ("spec.rayClusterSpec.autoscalerOptions", {"idleTimeout": 5}, r"did you mean 'idleTimeoutSeconds'"),
        ("spec.rayClusterSpec.gcsFaultToleranceOptions", {"redisAdress": "r"}, r"mean 'redisAddress'\?"),
        ("spec.submitterConfig", {"backofLimit": 1}, r"mean 'backoffLimit'\?"),
        (f"{GROUP}.maxReplica", 3, r"gpu has the key maxReplica, which KubeRay does not .*'maxReplicas'"),
        (f"{GROUP}.replicas", 9, r"gpu has impossible counts: minReplicas 0, replicas 9, maxReplicas 4"),
        (f"{GROUP}.numOfHosts", 0, r"gpu.numOfHosts = 0 is out of range"),
        (f"{GROUP}.rayStartParams", {"num-cpus": 0}, r'num-cpus = 0 is not a text; put it in quotes: "0"'),
        (f"{POD}.containers", [], r"containers has too few items: \[\]"),
        (f"{POD}.volumes", None, r"gpu: ray-worker mounts runs, which is no volume .*; add volumes"),
        (f"{WORKER}.image", None, r"ray-worker lacks the key image; add image:"),
        (f"{WORKER}.volumeMounts", [{"name": "runs"}], r"runs lacks the key mountPath"),
        (f"{WORKER}.volumeMounts", [{"name": "run", "mountPath": "/r"}], r"mounts run, .*mean 'runs'\?"),
        (
            f"{WORKER}.resources.limits.memory",
            "24GB",
            r"memory = 24GB is wrong \(it must be an amount such as",
        ),
        (f"{WORKER}.resources.limits.memory", "20Gi", r"requests memory 24Gi, above its limit 20Gi"),
        (f"{WORKER}.resources.requests.cpu", "9000m", r"requests cpu 9000m, above its limit 8"),
        (f"{WORKER}.resources.requests.cpu", "-1", r"cpu = -1 is wrong \(it must be an amount such as"),
        (f"{WORKER}.resources.limits", {"nvidia.com/gpu": 0.5}, r"gpu = 0.5 is not a whole .*; share a GPU"),
        (f"{WORKER}.resources.limits", {"nvidia.com/gpu": 2}, r"between request and limit: 1 and 2"),
        (f"{WORKER}.resources.limits", {"memory": "24Gi"}, r"1 and no limit; write limits"),
        ("spec.entrypointNumGpus", 2, r"entrypointNumGpus 2 is more than any pod has"),
        ("spec.entrypoint", "gansweep run --gpus-per-trial=2", r"--gpus-per-trial 2 .*trains on one GPU"),
    ],
)
def test_a_mistake_is_named(path: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_rayjob(changed(path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "notes"),
    [
        ("spec.submissionMode", "SidecarMode", [SCHEMA_NOTE.format("SidecarMode"), AUTH_NOTE]),
        (f"{POD}.volumeMount", [], [SCHEMA_NOTE.format("K8sJobMode"), AUTH_NOTE]),
        (f"{POD}.somethingBrandNew", {"of": "Kubernetes"}, [SCHEMA_NOTE.format("K8sJobMode"), AUTH_NOTE]),
    ],
    ids=["a mode without a submitter", "a container's key in its pod", "a key of a later Kubernetes"],
)
def test_what_may_be_there_passes(path: str, value: object, notes: list[str]) -> None:
    """Keys of Kubernetes' own part are not KubeRay's to know: no mistake, and nothing to say about them."""
    assert check_rayjob(changed(path, value)) == notes


def test_two_groups_of_one_name_are_refused() -> None:
    job = copy.deepcopy(SHIPPED)
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"] *= 2
    with pytest.raises(ConfigError, match="two worker groups of the name gpu"):
        check_rayjob(job)


def test_a_sidecar_has_no_submitter() -> None:
    job = changed("spec.submissionMode", "SidecarMode")
    job["spec"]["submitterConfig"] = {"backoffLimit": 1}
    with pytest.raises(ConfigError, match="SidecarMode takes no submitterConfig"):
        check_rayjob(job)


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
def test_a_note_says_what_is_worth_knowing(path: str, value: object, note: str) -> None:
    assert any(note in line for line in check_rayjob(changed(path, value)))


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", 0.5), ("2", 2), (2, 2), ("8Gi", 8 * 2**30), ("1e3", 1000), ("1.5k", 1500), ("3E", 3e18)],
)
def test_amounts(text: object, number: float) -> None:
    assert kuberay.amount(text) == pytest.approx(number)


@pytest.mark.parametrize("change", [{"resources": {"GPU": "4"}}, {"rayStartParams": {"num-gpus": "4"}}])
def test_gpus_that_a_group_declares_to_ray_count_before_its_limits(change: dict[str, Any]) -> None:
    group = SHIPPED["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert kuberay.gpus_of(group) == 1
    assert kuberay.gpus_of({**group, **change}) == 4
