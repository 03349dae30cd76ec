"""As many trials at a time as the cluster holds just now.

Owns: the limit on Ray's searcher, and its change as nodes come and go. Refuses: starting or ending nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.search import ConcurrencyLimiter, Searcher

from pipeline.config import SweepConfig
from pipeline.resources import Share, concurrency
from pipeline.sweep.connect import LOCAL, look

_PERIOD_SEC = 10.0


def limited(searcher: Searcher, trials: int) -> ConcurrencyLimiter:
    """`searcher`, asked for at most `trials` at a time."""
    return ConcurrencyLimiter(searcher, max_concurrent=trials)


class Elastic(Callback):  # type: ignore[misc]
    """Sets the limit anew every ten seconds, by the nodes that are alive then; a machine alone never changes.

    Trials of a node that is gone wait for another one; no new ones are asked for as long as they do.
    """

    def __init__(
        self, searcher: ConcurrencyLimiter, plan: SweepConfig, share: Share, say: Callable[[str], None]
    ) -> None:
        self._searcher, self._plan, self._share, self._say = searcher, plan, share, say
        self._looked = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._plan.address == LOCAL or time.monotonic() - self._looked < _PERIOD_SEC:
            return
        self._looked = time.monotonic()
        cluster = look()
        fits = concurrency(self._plan, self._share, cluster)
        if fits != self._searcher.max_concurrent:
            self._say(f"{fits} trials at a time instead of {self._searcher.max_concurrent} ({cluster})")
            self._searcher.max_concurrent = fits

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles its configuration to disk
