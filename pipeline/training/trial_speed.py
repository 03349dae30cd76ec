"""How fast trials go that train at the same time on one GPU, or one alone on a CPU or a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import TrialConfig


@dataclass(frozen=True)
class TrialSpeed:
    """How fast each of some trials goes that train at the same time on one GPU.

    trials: at a time. seconds_per_kimg: of training. eval_seconds: of one fid.
    """

    trials: int
    seconds_per_kimg: float
    eval_seconds: float

    def seconds(self, config: TrialConfig) -> float:
        """Of a full trial of `config`'s length: its training and a fid at every tick."""
        return config.kimg * self.seconds_per_kimg - (-config.kimg // config.tick_kimg) * self.eval_seconds

    def per_hour(self, config: TrialConfig) -> float:
        """Trials of that length that the GPU finishes in an hour."""
        return self.trials * 3600 / self.seconds(config)
