"""BOHB as its authors ship it (hpbandster): its optimizer's own loop, without name server and workers."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

from hpbandster.core.master import Master
from hpbandster.optimizers.bohb import BOHB

from pipeline.search.space.definition import Space
from replays.peers.base import BudgetSearch, OwnRandomState, Request
from replays.peers.spaces import active_params, to_configspace


class _Strict(logging.Logger):
    """A logger that raises where hpbandster would go on with a random configuration after an error."""

    def warning(self, message: object, *args: object, **more: Any) -> None:
        text = str(message)
        if "Using random configuration" in text or text.startswith(("Error", "=")):
            raise RuntimeError(text % args if args else text)


class _NoNetwork(Master):  # type: ignore[misc]
    """`Master` without its dispatcher, which needs a name server."""

    def __init__(self, config_generator: Any) -> None:
        self.config_generator = config_generator
        config_generator.logger = _Strict("bohb")
        self.iterations: list[Any] = []
        self.config: dict[str, Any] = {}


class _Bohb(BOHB, _NoNetwork):  # type: ignore[misc]
    """BOHB on `_NoNetwork`: `super().__init__` of BOHB finds it before `Master`."""


class BohbSearch(BudgetSearch):
    """A `replays.clock.Search`: Hyperband (eta 3) over kimg with kernel density estimators."""

    def __init__(self, space: Space, seed: int, workers: int, full_kimg: int) -> None:
        super().__init__()
        self._random = OwnRandomState(seed)
        self._space = space
        self._configspace = to_configspace(space, seed)
        self._bohb = _Bohb(configspace=self._configspace, min_budget=1, max_budget=full_kimg)

    def next_request(self) -> Request:
        with self._random():
            while True:  # as Master.run
                for number in self._bohb.active_iterations():
                    found = self._bohb.iterations[number].get_next_run()
                    if found is not None:
                        key, config, budget = found
                        return Request(key, active_params(self._space, config), budget, (key, config, budget))
                self._bohb.iterations.append(self._bohb.get_next_iteration(len(self._bohb.iterations)))

    def tell(self, ticket: Any, value: float) -> None:
        key, config, budget = ticket
        job = SimpleNamespace(
            id=key,
            kwargs={"config": config, "budget": budget},
            timestamps={},
            result={"loss": value, "info": {}},
            exception=None,
        )
        with self._random():  # as Master.job_callback
            self._bohb.iterations[key[0]].register_result(job)
            self._bohb.config_generator.new_result(job)
