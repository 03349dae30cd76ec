"""Every private interface of Ray that this project uses, each behind one function.

Tested with the versions in `TESTED`; tests/cluster/test_compat.py names what another Ray lacks. Ray is
imported when a function is called.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TESTED = ("2.60.0",)
"""Versions of Ray whose private interfaces are those that are used here."""


def draining_nodes() -> set[str]:
    """The ids of the nodes that are being drained; none where this Ray does not tell."""
    from ray.exceptions import RayError

    try:
        from ray._private.state import state  # as Ray Train does

        return set(state.get_draining_nodes())
    except (ImportError, AttributeError, OSError, RuntimeError, RayError):
        return set()


def accelerator_resources() -> dict[str, float]:
    """The resource by which a local Ray names the kind of this machine's GPUs; none where it has none."""
    try:
        from ray._private.accelerators import get_accelerator_manager_for_resource

        kind = get_accelerator_manager_for_resource("GPU").get_current_node_accelerator_type()
    except Exception:  # what fails in a changed interface is not known
        return {}
    return {f"accelerator_type:{kind}": 1.0} if kind else {}


def is_infeasible(demand: str) -> bool:
    """Whether the autoscaler reports that it can never place a placement group; v1 reports nothing.

    demand: the group's id in hex. False as well where this Ray does not tell.
    """
    try:
        import ray
        from ray.core.generated import autoscaler_pb2

        client: Any = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
        reply = autoscaler_pb2.GetClusterStatusReply()
        reply.ParseFromString(client.get_cluster_status(timeout_s=5))
        requests = reply.autoscaling_state.infeasible_gang_resource_requests
        return any(request.details.startswith(demand) for request in requests)
    except Exception:  # what fails in a changed interface is not known
        return False


def actor_of(trial: Any) -> Any:
    """The actor that runs a trial of Tune; None where it has none, or this Ray does not tell."""
    return getattr(getattr(trial, "temporary_state", None), "ray_actor", None)


def take_back_failure(trial: Any) -> None:
    """Let Tune count one failure less of a trial; nothing happens where this Ray counts elsewhere."""
    counts: Any = getattr(trial, "run_metadata", None)
    if getattr(counts, "num_failures", 0) > 0:
        counts.num_failures -= 1


def cluster_file_schema() -> Path | None:
    """Ray's JSON schema of a cluster launcher file; None where Ray is not installed or has none."""
    spec = importlib.util.find_spec("ray")  # does not import it
    path = Path(spec.origin).parent / "autoscaler" / "ray-schema.json" if spec and spec.origin else None
    return path if path and path.is_file() else None


def validate_cluster_file(content: Mapping[str, object]) -> None:
    """Let Ray fill in the defaults of a cluster launcher file and validate it.

    Raises:
        ImportError: this Ray has no such validator.
        Exception: of any type, where the file is not valid.
    """
    from ray.autoscaler._private.util import prepare_config, validate_config

    log = logging.getLogger("ray.autoscaler._private.util")
    level, log.level = log.level, logging.WARNING  # it logs every default that it fills in
    try:
        validate_config(prepare_config(copy.deepcopy(dict(content))))
    finally:
        log.level = level
