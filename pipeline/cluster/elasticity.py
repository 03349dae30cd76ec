"""Nodes come and go: as many trials at a time as the cluster holds, none the worse for a node that is lost.

Owns: the limit on Ray's searcher, and the pardon of trials whose node went away. Refuses: starting or ending
nodes.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from ray.tune import Callback
from ray.tune.search import ConcurrencyLimiter, Searcher

from pipeline.cluster.connection import LOCAL, cluster_nodes
from pipeline.cluster.preemption import PREEMPTED
from pipeline.cluster.tune_adapters import NODE_GONE, failure_cause
from pipeline.config import SweepConfig
from pipeline.search.resources import Cluster, TrialResources, concurrency

log = logging.getLogger(__name__)

_PERIOD_SEC = 5.0
_TOLD_SEC = 60.0
_NOTICED_SEC = 120.0  # Ray takes up to half a minute to declare a silent node dead


def limit_concurrency(searcher: Searcher, trials: int) -> ConcurrencyLimiter:
    """`searcher`, asked for at most `trials` at a time."""
    return ConcurrencyLimiter(searcher, max_concurrent=trials)


class ConcurrencyCallback(Callback):  # type: ignore[misc]
    """Sets the limit anew every few seconds, by the nodes that are alive then; a machine alone never changes.

    Trials of a node that is gone wait for another one; no new ones are asked for as long as they do.
    """

    def __init__(
        self,
        searcher: ConcurrencyLimiter,
        plan: SweepConfig,
        share: TrialResources,
    ) -> None:
        self._searcher, self._plan, self._share = searcher, plan, share
        self._looked = time.monotonic()
        self._alone: tuple[float, float] | None = None  # since no machine holds a trial; when that was told

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._plan.address == LOCAL or time.monotonic() - self._looked < _PERIOD_SEC:
            return
        self._looked = time.monotonic()
        cluster = cluster_nodes()
        fits = concurrency(self._plan, self._share, cluster)
        if fits != self._searcher.max_concurrent:
            log.info(f"trials at a time: {fits} instead of {self._searcher.max_concurrent} ({cluster})")
            self._searcher.max_concurrent = fits
        self._tell_of_waiting(cluster)

    def _tell_of_waiting(self, cluster: Cluster) -> None:
        """Once a minute, as long as no machine holds a trial."""
        now = self._looked
        if cluster.now(self._share.bundle):
            self._alone = None
            return
        since, told = self._alone or (now, -_TOLD_SEC + now)
        if now - told >= _TOLD_SEC:
            told = now
            log.info(f"no machine holds a trial ({self._share}): waiting for one, {now - since:.0f} s so far")
        self._alone = since, told

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles its configuration to disk


class NodeLossCallback(Callback):  # type: ignore[misc]
    """A trial that failed because its node was lost goes on elsewhere, and may fail as often as before.

    Ray counts each such loss as a failure of the trial, unless the trial had notice and left. The worker
    fails first and its node is declared dead later, so a failure is kept in mind until then.
    """

    def __init__(self) -> None:
        self._suspects: list[tuple[Any, str, float]] = []
        self._pardoned: set[tuple[str, str]] = set()
        self._looked = 0.0

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        node = (trial.last_result or {}).get("node", "")
        if failure_cause(trial.error_file)[0] == NODE_GONE:
            log.info(f"trial {trial.config['number']}: {PREEMPTED}; it goes on elsewhere from where it was")
        elif node and (trial.trial_id, node) not in self._pardoned:
            self._suspects.append((trial, node, time.monotonic() + _NOTICED_SEC))

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = time.monotonic()
        if not self._suspects or now - self._looked < _PERIOD_SEC:
            return
        self._looked, lost = now, lost_nodes()
        for trial, node, _ in self._suspects:
            if node in lost:
                trial.run_metadata.num_failures = max(0, trial.run_metadata.num_failures - 1)
                self._pardoned.add((trial.trial_id, node))
                log.info(f"trial {trial.config['number']} lost its node and goes on elsewhere")
        self._suspects = [s for s in self._suspects if s[1] not in lost and now < s[2]]

    def __getstate__(self) -> dict[str, Any]:
        return {}


def lost_nodes() -> set[str]:
    """The ids of nodes that were part of the cluster and are not any more."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
