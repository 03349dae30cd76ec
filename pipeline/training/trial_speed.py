"""The speed of trials that train at the same time on one GPU, or of one alone on a CPU or a GPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.config import TrialConfig


@dataclass(frozen=True)
class TrialSpeed:
    """The speed of each of them. seconds_per_kimg: of training. eval_seconds: of one fid."""

    trials: int
    seconds_per_kimg: float
    eval_seconds: float

    def seconds(self, config: TrialConfig) -> float:
        """Seconds of a full trial of `config`'s length: its training and a fid at every tick."""
        ticks = math.ceil(config.kimg / config.tick_kimg)
        return config.kimg * self.seconds_per_kimg + ticks * self.eval_seconds

    def per_hour(self, config: TrialConfig) -> float:
        """Trials of that length that the device finishes in an hour."""
        return self.trials * 3600 / self.seconds(config)
