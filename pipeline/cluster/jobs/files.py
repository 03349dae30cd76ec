"""Clusters, from the outside: files that start one are checked offline, sweeps run on one as a job.

Owns: the checks of a Ray cluster launcher file and of a KubeRay RayJob (`reading`, `schema`, `launcher`,
`kuberay`); asking a cluster's head (`head`), packing a sweep as a job (`package`), its life (`client`).
Refuses: starting machines (`ray up`, `kubectl apply` do).
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


def check_head(address: str, plan: SweepConfig) -> None:
    """Look whether the cluster at `address` answers, and whether it can give a trial what it asks for.

    Raises:
        ConfigError: it does not, or cannot.
    """
    head.check_head_answers(address)
    trial_resources(plan, head.head_nodes(address))


def check_cluster_file(path: Path) -> list[str]:
    """Check a cluster file of either kind; a space is checked by `pipeline.search.space`."""
    checks: dict[str, Callable[[Path], list[str]]] = {"cluster": check_launcher, "kuberay": check_kuberay}
    kind = cluster_file_kind(path)
    if kind not in checks:
        raise ConfigError("a cluster file is YAML", seen=str(path), fix="a space is checked as a space")
    return checks[kind](path)
