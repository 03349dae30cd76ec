"""Clusters, from the outside: files that start one are checked offline, sweeps run on one as a job.

Owns: the checks of a Ray cluster launcher file and of a KubeRay RayJob (`reading`, `schema`, `launcher`,
`kuberay`); asking a cluster's head (`head`), packing a sweep as a job (`package`), its life (`client`).
Refuses: starting machines (`ray up`, `kubectl apply` do).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.config import SweepConfig
from pipeline.errors import ConfigError
from pipeline.jobs import head
from pipeline.jobs.client import OVER, described, follow, listed, stop, submit
from pipeline.jobs.head import address_of
from pipeline.jobs.kuberay import check_kuberay
from pipeline.jobs.launcher import check_cluster, version_of
from pipeline.jobs.reading import kind_of
from pipeline.resources import share_of

__all__ = [
    "OVER",
    "address_of",
    "check",
    "check_cluster",
    "check_head",
    "check_kuberay",
    "described",
    "follow",
    "kind_of",
    "listed",
    "stop",
    "submit",
    "version_of",
]


def check_head(address: str, plan: SweepConfig) -> None:
    """Look whether the cluster at `address` answers, and whether it can give a trial what it asks for.

    Raises:
        ConfigError: it does not, or cannot.
    """
    head.check(address)
    share_of(plan, head.look(address))


def check(path: Path) -> list[str]:
    """Check a cluster file of either kind; a space is checked by `pipeline.spaces`."""
    checks: dict[str, Callable[[Path], list[str]]] = {"cluster": check_cluster, "kuberay": check_kuberay}
    kind = kind_of(path)
    if kind not in checks:
        raise ConfigError("a cluster file is YAML", seen=str(path), fix="a space is checked as a space")
    return checks[kind](path)
