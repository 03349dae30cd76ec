"""The wait for a machine that an autoscaler is to add.

Owns: asking for it, how long, when it will never come. Refuses: deciding what a trial asks for.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

from pipeline.cluster.connection import cluster_nodes
from pipeline.errors import ConfigError
from pipeline.search.resources import TrialResources

log = logging.getLogger(__name__)

_PERIOD_SEC = 1.0
_TOLD_SEC = 60.0
_SURE_SEC = 10.0
"""So long an autoscaler has to report that it has no such machine: it may not have read its own list yet."""


def wait_for_machine(
    share: TrialResources,
    bound_sec: float,
    *,
    sure_sec: float = _SURE_SEC,
    told_sec: float = _TOLD_SEC,
) -> None:
    """Ask for a machine that holds a trial and wait until it is there; bound_sec 0 waits for ever.

    Raises:
        ConfigError: the autoscaler has none that does, or none came in time.
    """
    if cluster_nodes().now(share.bundle):
        return
    bound = f"at most {_minutes(bound_sec)}" if bound_sec else "without end"
    log.info(f"no machine holds a trial ({share}): waiting for the autoscaler to add one, {bound}")
    began = told = time.monotonic()
    refused = 0.0
    with _asked(share.bundle) as demand:
        while not cluster_nodes().now(share.bundle):
            now = time.monotonic()
            refused = (refused or now) if _infeasible(demand) else 0.0
            if refused and now - refused >= sure_sec:
                raise _refusal(
                    share, "its autoscaler has no such machine to add", "add one to its node types"
                )
            if bound_sec and now - began >= bound_sec:
                came = f"none came in {_minutes(now - began)}"
                raise _refusal(share, came, "ask `ray status` why, raise --wait")
            if now - told >= told_sec:
                log.info(
                    f"still waiting for a machine with {share}: {_minutes(now - began)} so far ({cluster_nodes()})"
                )
                told = now
            time.sleep(_PERIOD_SEC)
    log.info(f"a machine is there after {_minutes(time.monotonic() - began)}: {cluster_nodes()}")


@contextlib.contextmanager
def _asked(bundle: dict[str, float]) -> Iterator[str]:
    """A demand for as much as one trial, which is what autoscalers answer to; gives its id."""
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([bundle])
    try:
        yield group.id.hex()
    finally:
        remove_placement_group(group)


def _infeasible(demand: str) -> bool:
    """Whether the autoscaler says that it can never meet a demand; False where it tells nothing (v1)."""
    try:
        import ray
        from ray.core.generated import autoscaler_pb2

        client: Any = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
        reply = autoscaler_pb2.GetClusterStatusReply()
        reply.ParseFromString(client.get_cluster_status(timeout_s=5))
        refused = reply.autoscaling_state.infeasible_gang_resource_requests
    except Exception:  # private, and moved: the bound still holds
        return False
    return any(request.details.startswith(demand) for request in refused)


def _refusal(share: TrialResources, what: str, fix: str) -> ConfigError:
    asks = "lower --gpus-per-trial (0 trains on cores)" if share.gpus else "lower --cpus-per-trial"
    return ConfigError(
        f"a machine of the cluster holds one trial ({share})",
        seen=f"{what}; now there is {cluster_nodes()}",
        fix=f"{fix}, or {asks}",
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
