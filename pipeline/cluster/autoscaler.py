"""Waiting for a machine that an autoscaler is to add, with a bound."""

from __future__ import annotations

import logging
import time

from pipeline.cluster._compat import is_infeasible
from pipeline.cluster.connection import cluster_nodes
from pipeline.cluster.tasks import placement
from pipeline.errors import ConfigError
from pipeline.search.resources import TrialResources
from pipeline.storage.readable import readable_duration

log = logging.getLogger(__name__)

_PERIOD_SEC = 1.0
_LOG_EVERY_SEC = 60.0
_INFEASIBLE_SEC = 10.0
"""An autoscaler must report for this long that it has no such machine: at first it may not have read its own
list of machines yet."""


def wait_for_machine(resources: TrialResources, bound_sec: float) -> None:
    """Ask the autoscaler for a machine that holds one trial and wait until it is there.

    bound_sec: 0 = without end.

    Raises:
        ConfigError: the autoscaler has no such machine, or none came in time.
    """
    if cluster_nodes().fits_now(resources.bundle):
        return
    bound = f"at most {readable_duration(bound_sec)}" if bound_sec else "without end"
    log.info(f"no machine holds a trial ({resources}): waiting for the autoscaler to add one, {bound}")
    began = logged = time.monotonic()
    infeasible_since = 0.0
    with placement(resources.bundle) as demand:  # what autoscalers respond to
        while not cluster_nodes().fits_now(resources.bundle):
            now = time.monotonic()
            infeasible_since = (infeasible_since or now) if is_infeasible(demand.id.hex()) else 0.0
            if infeasible_since and now - infeasible_since >= _INFEASIBLE_SEC:
                reason = "its autoscaler has no such machine to add"
                raise _no_machine(resources, reason, "add one to its node types")
            if bound_sec and now - began >= bound_sec:
                came = f"none came in {readable_duration(now - began)}"
                raise _no_machine(resources, came, "ask `ray status` why, raise --wait")
            if now - logged >= _LOG_EVERY_SEC:
                so_far = f"{readable_duration(now - began)} so far ({cluster_nodes()})"
                log.info(f"still waiting for a machine with {resources}: {so_far}")
                logged = now
            time.sleep(_PERIOD_SEC)
    log.info(f"a machine is there after {readable_duration(time.monotonic() - began)}: {cluster_nodes()}")


def _no_machine(resources: TrialResources, reason: str, fix: str) -> ConfigError:
    smaller = "lower --gpus-per-trial (0 trains on cores)" if resources.gpus else "lower --cpus-per-trial"
    return ConfigError(
        f"no machine of the cluster holds one trial ({resources})",
        seen=f"{reason}; now there is {cluster_nodes()}",
        fix=f"{fix}, or {smaller}",
    )
