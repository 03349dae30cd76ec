"""Callbacks of Ray Tune for clusters whose nodes come and go."""

from __future__ import annotations

import logging
import time
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.search import ConcurrencyLimiter

from pipeline.cluster._compat import take_back_failure
from pipeline.cluster.connection import LOCAL, cluster_nodes
from pipeline.cluster.preemption import PREEMPTED
from pipeline.cluster.tune_adapters import NODE_GONE, Unpickled, failure_cause
from pipeline.config import SweepConfig
from pipeline.search.resources import TrialResources, concurrency

log = logging.getLogger(__name__)

_PERIOD_SEC = 5.0
_LOG_EVERY_SEC = 60.0
_DECLARED_DEAD_SEC = 120.0
"""Within this time a lost node is declared dead: Ray takes up to half a minute for a silent one."""


class ConcurrencyCallback(Unpickled, Callback):  # type: ignore[misc]
    """Sets the searcher's limit every few seconds, by the nodes that are alive; not for a local Ray.

    Trials of a node that is gone wait for another one; no new trials are started as long as they do.
    """

    def __init__(self, searcher: ConcurrencyLimiter, config: SweepConfig, resources: TrialResources) -> None:
        self._searcher, self._config, self._resources = searcher, config, resources
        self._checked = time.monotonic()
        # Since when no machine has held a trial, and when that was last logged.
        self._waiting: tuple[float, float] | None = None

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._config.address == LOCAL or time.monotonic() - self._checked < _PERIOD_SEC:
            return
        self._checked = time.monotonic()
        cluster = cluster_nodes()
        limit = concurrency(self._config, self._resources, cluster)
        if limit != self._searcher.max_concurrent:
            log.info(f"trials at a time: {limit} instead of {self._searcher.max_concurrent} ({cluster})")
            self._searcher.set_max_concurrency(limit)
        now = self._checked
        if cluster.fits_now(self._resources.bundle):
            self._waiting = None
            return
        since, logged = self._waiting or (now, now - _LOG_EVERY_SEC)
        if now - logged >= _LOG_EVERY_SEC:
            logged = now
            waits = f"waiting for one, {now - since:.0f} s so far"
            log.info(f"no machine holds a trial ({self._resources}): {waits}")
        self._waiting = since, logged


class NodeLossCallback(Unpickled, Callback):  # type: ignore[misc]
    """Takes back the failure that Ray counts for a trial when its node is lost; the trial goes on elsewhere.

    Ray counts no failure where the trial was given notice and left. The worker fails first and its node is
    declared dead later, so failures are remembered until then.
    """

    def __init__(self) -> None:
        self._failed: list[tuple[Any, str, float]] = []  # trial, its node, until when to remember it
        self._forgiven: set[tuple[str, str]] = set()
        self._checked = 0.0

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        node = (trial.last_result or {}).get("node", "")
        if failure_cause(trial.error_file)[0] == NODE_GONE:
            log.info(f"trial {trial.config['number']}: {PREEMPTED}; it goes on elsewhere from where it was")
        elif node and (trial.trial_id, node) not in self._forgiven:
            self._failed.append((trial, node, time.monotonic() + _DECLARED_DEAD_SEC))

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = time.monotonic()
        if not self._failed or now - self._checked < _PERIOD_SEC:
            return
        self._checked, lost = now, lost_nodes()
        for trial, node, _ in self._failed:
            if node in lost:
                take_back_failure(trial)
                self._forgiven.add((trial.trial_id, node))
                log.info(f"trial {trial.config['number']} lost its node and goes on elsewhere")
        self._failed = [
            (trial, node, until) for trial, node, until in self._failed if node not in lost and now < until
        ]


def lost_nodes() -> set[str]:
    """The ids of nodes that were part of the cluster and no longer are."""
    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
