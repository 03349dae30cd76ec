"""DEHB (differential evolution and Hyperband) of its authors' package, asked and told."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from dehb import DEHB
from loguru import logger

from pipeline.search.space.definition import Space
from replays.peers.base import BudgetSearch, OwnRandomState, Request
from replays.peers.spaces import active_params, to_configspace


class DehbSearch(BudgetSearch):
    """A `replays.clock.Search` with DEHB's defaults (eta 3). One worker: more would start Dask's."""

    def __init__(self, space: Space, seed: int, workers: int, full_kimg: int) -> None:
        super().__init__()
        self._random = OwnRandomState(seed)
        self._space = space
        self._folder = Path(tempfile.mkdtemp(prefix="dehb-"))
        logger.configure(handlers=[{"sink": sys.stderr, "level": "ERROR"}])
        with self._random():
            self._dehb = DEHB(
                cs=to_configspace(space, seed),
                min_fidelity=1,
                max_fidelity=full_kimg,
                seed=seed,
                n_workers=1,
                save_freq="end",
                output_path=self._folder,
            )

    def next_request(self) -> Request:
        with self._random():
            job = self._dehb.ask()
        params = active_params(self._space, dict(job["config"]))
        return Request(int(job["config_id"]), params, job["fidelity"], job)

    def tell(self, ticket: Any, value: float) -> None:
        with self._random():
            self._dehb.tell(ticket, {"fitness": value, "cost": ticket["fidelity"]})

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
