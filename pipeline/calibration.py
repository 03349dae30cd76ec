"""How long and how large the largest trial of a space would be, from a few real steps of it.

Owns: which configuration is the largest, the measuring. Refuses: deciding what to make of it; Ray.

Run it in a process of its own: on a CPU the memory it tells is that of the whole process.
"""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.config import TrialConfig
from pipeline.data import Dataset
from pipeline.fid import Evaluator
from pipeline.graphs import WARM_UP
from pipeline.process import prepare_process
from pipeline.spaces import Space
from pipeline.trainer import Trainer
from pipeline.trial import sampler

WARM_STEPS = 3
"""Left out of the clock: allocations, choice of kernels."""

_HEAVIER = {
    "architecture": ("mlp", "dcgan", "resnet"),
    "penalty": ("none", "dragan", "gp", "r1", "r1r2"),
    "precision": ("bfloat16", "float32"),
    "norm_g": ("none", "batch"),
    "norm_d": ("none", "batch", "layer", "spectral"),
    "augment": ("none", "diffaugment", "ada"),
    "loss": ("minimax", "nonsaturating", "hinge", "lsgan", "wasserstein", "relativistic"),
}
"""Words from the lightest to the heaviest; what is not listed (networks of one's own) counts as heaviest."""

_LIGHTER = ("penalty_interval", "tick_kimg")
"""Numbers that cost less the higher they are."""


@dataclass(frozen=True)
class Calibration:
    """What was measured. seconds_per_kimg: of training; eval_seconds: of one fid.

    memory_bytes: highest, of torch on a GPU and of the process on a CPU. device_bytes: the GPU's, 0 = a CPU.
    """

    seconds_per_kimg: float
    eval_seconds: float
    memory_bytes: int
    device: str
    device_bytes: int = 0

    def trial_seconds(self, config: TrialConfig) -> float:
        """A full trial of `config`'s length: its training and a fid at every tick."""
        return config.kimg * self.seconds_per_kimg - (-config.kimg // config.tick_kimg) * self.eval_seconds


def largest(space: Space) -> TrialConfig:
    """The configuration that takes the most memory and time of all that the space can draw.

    Every number at its heavier end, every word at its heaviest; conditions are kept.
    """
    point: dict[str, Any] = {}
    for name, d in space.search.items():
        if not space.active(name, point):
            continue
        if d.choices:
            point[name] = max(d.choices, key=lambda choice, name=name: _weight(name, choice))  # type: ignore[misc]
        else:
            end = d.low if name in _LIGHTER else d.high
            point[name] = int(end) if d.whole else end
    return space.config(point)


def _weight(name: str, choice: Any) -> float:
    if isinstance(choice, str):
        order = _HEAVIER.get(name, ())
        return float(order.index(choice) if choice in order else len(order))
    return -float(choice) if name in _LIGHTER else float(choice)


def calibrate(
    config: TrialConfig,
    dataset: Dataset,
    evaluator: Evaluator,
    device: str,
    threads: int,
    seconds: float = 20.0,
) -> Calibration:
    """Train some steps of `config`, for at most about `seconds`, and take one fid of the result."""
    prepare_process(threads)
    on = torch.device(device)
    labels = dataset.train_labels if config.conditional else None
    trainer = Trainer(
        config,
        torch.from_numpy(dataset.train).to(on),
        None if labels is None else torch.from_numpy(labels).to(on),
        len(dataset.classes),
        on,
    )
    clock = _Clock(trainer, _steps(config), seconds)
    trainer.advance(10**9, clock)
    begun = time.perf_counter()
    evaluator.score(sampler(trainer.ema.generator, dataset))
    evaluated = time.perf_counter() - begun
    if on.type == "cuda":
        memory, room = torch.cuda.max_memory_reserved(on), torch.cuda.get_device_properties(on).total_memory
        return Calibration(clock.seconds_per_kimg, evaluated, memory, torch.cuda.get_device_name(on), room)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Calibration(clock.seconds_per_kimg, evaluated, memory, "cpu")


def _steps(config: TrialConfig) -> int:
    """Enough for D, G and a lazy penalty to have had their turns."""
    return max(8, 2 * config.n_critic, config.penalty_interval if config.penalty != "none" else 0)


def _warm_steps(trainer: Trainer) -> int:
    """Until every kind of step was recorded, on a GPU: the rarest is both G's turn and the penalty's."""
    if trainer.device.type != "cuda":
        return WARM_STEPS
    config = trainer.config
    interval = config.penalty_interval if config.penalty != "none" else 1
    return max(WARM_STEPS, (WARM_UP + 2) * math.lcm(config.n_critic, interval))


class _Clock:
    """Asked before every step whether to stop; begins to count after the warm ones."""

    def __init__(self, trainer: Trainer, steps: int, seconds: float) -> None:
        self._trainer, self._steps, self._seconds = trainer, steps, seconds
        self._warm = _warm_steps(trainer)
        self._asked, self._begun, self._seen = 0, time.perf_counter(), 0
        self.seconds_per_kimg = 0.0

    def __call__(self) -> bool:
        self._asked += 1
        late = time.perf_counter() - self._begun > self._seconds
        if self._asked == self._warm + 1:
            self._wait()
            self._begun, self._seen = time.perf_counter(), self._trainer.nimg
        if self._asked <= self._warm + 1 or (self._asked <= self._warm + self._steps and not late):
            return False
        self._wait()
        seen = (self._trainer.nimg - self._seen) / 1000
        self.seconds_per_kimg = (time.perf_counter() - self._begun) / seen
        return True

    def _wait(self) -> None:
        if self._trainer.device.type == "cuda":
            torch.cuda.synchronize(self._trainer.device)
