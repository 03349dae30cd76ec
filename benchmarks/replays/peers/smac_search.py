"""SMAC3's multi-fidelity facade (random forest, Hyperband) as its authors ship it, asked and told."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from smac import MultiFidelityFacade, Scenario
from smac.runhistory.dataclasses import TrialValue

from pipeline.search.space.definition import Space
from replays.peers.base import BudgetSearch, OwnRandomState, Request
from replays.peers.spaces import active_params, to_configspace


class SmacSearch(BudgetSearch):
    """A `replays.clock.Search` with SMAC's defaults, those of 100 trials: it begins with 25 random ones."""

    def __init__(self, space: Space, seed: int, workers: int, full_kimg: int) -> None:
        super().__init__()
        self._random = OwnRandomState(seed)
        self._space = space
        self._folder = Path(tempfile.mkdtemp(prefix="smac-"))
        with self._random():
            scenario = Scenario(
                to_configspace(space, seed),
                output_directory=self._folder,
                deterministic=True,
                min_budget=1,
                max_budget=full_kimg,
                seed=seed,
            )
            self._smac = MultiFidelityFacade(
                scenario, lambda config, seed, budget: 0.0, overwrite=True, logging_level=logging.ERROR
            )

    def next_request(self) -> Request:
        with self._random():
            info = self._smac.ask()
        values = dict(info.config)
        key = tuple(sorted(values.items()))
        return Request(key, active_params(self._space, values), info.budget, info)

    def tell(self, ticket: Any, value: float) -> None:
        with self._random():
            self._smac.tell(ticket, TrialValue(cost=value), save=False)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
