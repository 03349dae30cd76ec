"""PriorBand of NePS as its authors ship it, asked and told.

It needs a prior: the space's first enqueued point, or the middle of the ranges (`spaces.prior_point`), of low
confidence. NePS has no conditions: every parameter is drawn, and dropped where its condition does not hold.
"""

from __future__ import annotations

from typing import Any

import neps
import torch  # noqa: F401  # drawn from by NePS: its state is the peer's own (`OwnRandomState`)

from pipeline.search.space.definition import Space
from replays.peers.base import BudgetSearch, OwnRandomState, Request
from replays.peers.spaces import active_params, to_neps

KIMG = "kimg"


class PriorBandSearch(BudgetSearch):
    """A `replays.clock.Search`: Hyperband (eta 3) that samples around the prior and the incumbent."""

    def __init__(self, space: Space, seed: int, workers: int, full_kimg: int) -> None:
        super().__init__()
        self._random = OwnRandomState(seed)
        self._space = space
        with self._random():
            self._neps = neps.AskAndTell(neps.algorithms.priorband(to_neps(space, KIMG, full_kimg)))

    def next_request(self) -> Request:
        with self._random():
            trial = self._neps.ask()
        key = trial.id.split("_rung_")[0]
        return Request(key, active_params(self._space, trial.config), trial.config[KIMG], trial.id)

    def tell(self, ticket: Any, value: float) -> None:
        with self._random():
            self._neps.tell(ticket, value)
