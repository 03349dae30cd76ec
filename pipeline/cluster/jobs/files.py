"""The checks before a sweep goes to a cluster: of a cluster's file, offline, and of a cluster's head.

Not for starting machines (`ray up` and `kubectl apply` do).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.cluster.jobs import head
from pipeline.cluster.jobs.kuberay import check_kuberay
from pipeline.cluster.jobs.launcher import check_launcher
from pipeline.cluster.jobs.yaml_file import cluster_file_kind
from pipeline.config import SweepConfig
from pipeline.errors import ConfigError
from pipeline.search.resources import trial_resources


def check_head(address: str, config: SweepConfig) -> None:
    """Check that the cluster at `address` (of its dashboard) answers and can hold a trial of the sweep.

    Raises:
        ConfigError: it does not, or cannot.
    """
    head.check_head_answers(address)
    trial_resources(config, head.head_nodes(address))


def check_cluster_file(path: Path) -> list[str]:
    """Check a cluster launcher file or a KubeRay RayJob offline; returns one note per thing checked.

    Raises:
        ConfigError: the first rule that the file breaks.
    """
    checks: dict[str, Callable[[Path], list[str]]] = {"cluster": check_launcher, "kuberay": check_kuberay}
    kind = cluster_file_kind(path)
    if kind not in checks:
        raise ConfigError(
            "{seen} is not a cluster file",
            rule="a cluster file is YAML",
            seen=str(path),
            fix="check a space as a space",
        )
    return checks[kind](path)
