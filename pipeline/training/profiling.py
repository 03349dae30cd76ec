"""How long and how large the largest trial of a space would be, from a few real steps of it.

Owns: which configuration is the largest, the measuring. Refuses: deciding what to make of it; Ray.

Run it in a process of its own: on a CPU the memory it tells is that of the whole process.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.metrics.frechet import Evaluator
from pipeline.training.cuda_graphs import WARM_UP
from pipeline.training.overlap import cloned_state, run_overlapped
from pipeline.training.prefetch import place_labels
from pipeline.training.process import is_out_of_memory, prepare_process, release_memory
from pipeline.training.sampling import sampler
from pipeline.training.trainer import Trainer
from pipeline.training.trial import build_trainer
from pipeline.training.trial_speed import TrialSpeed

WARM_STEPS = 3
"""Left out of the clock: allocations, choice of kernels."""

LEAST_SEC = 2.0
"""Of training on a GPU, whose steps are too short to be timed one by one."""


@dataclass(frozen=True)
class TrialProfile:
    """What was measured. seconds_per_kimg: of training; eval_seconds: of one fid.

    memory_bytes: highest, of torch on a GPU and of the process on a CPU. device_bytes: the GPU's, 0 = a CPU.
    """

    seconds_per_kimg: float
    eval_seconds: float
    memory_bytes: int
    device: str
    device_bytes: int = 0

    @property
    def pace(self) -> TrialSpeed:
        """Of the trial, alone."""
        return TrialSpeed(1, self.seconds_per_kimg, self.eval_seconds)


def profile_trial(
    config: TrialConfig,
    dataset: Dataset,
    evaluator: Evaluator,
    device: str,
    threads: int,
    seconds: float = 20.0,
) -> TrialProfile:
    """Train some steps of `config`, for at most about `seconds`, and take one fid of the result.

    Nothing of it stays on the GPU. The memory is that of steady training and of a fid; what recording the
    steps' graphs takes for a moment is not in it.
    """
    on = torch.device(device)
    prepare_process(threads, on, config.float_pixels(dataset.size))
    least = min(LEAST_SEC, seconds) if on.type == "cuda" else 0.0
    trainer = clock = None
    try:
        trainer = build_trainer(config, dataset, on)
        clock = _Clock(trainer, _steps(config), least, seconds)
        trainer.advance(10**9, clock)
        if on.type == "cuda":  # the first one loads kernels, too
            _look_seconds(trainer, dataset, evaluator)
        evaluated = _look_seconds(trainer, dataset, evaluator)
        if on.type != "cuda":
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            return TrialProfile(clock.seconds_per_kimg, evaluated, memory, "cpu")
        memory, room = torch.cuda.max_memory_reserved(on), torch.cuda.get_device_properties(on).total_memory
        return TrialProfile(clock.seconds_per_kimg, evaluated, memory, torch.cuda.get_device_name(on), room)
    finally:
        del trainer, clock
        release_memory(on)


@dataclass(frozen=True)
class SharedGpuSample:
    """What one of several trials did while all trained: real images, in so many seconds; then a fid."""

    images: int
    seconds: float
    eval_seconds: float


def profile_sharing_gpu(
    config: TrialConfig,
    dataset: Dataset,
    evaluator: Evaluator,
    device: str,
    threads: int,
    gate: Callable[[], float],
    seconds: float,
) -> SharedGpuSample:
    """Train beside others: from a common moment for `seconds`, and then take a fid as they do.

    gate: called once this trial is warm; waits for the others, and gives the moment (as of `time.time`).
    """
    on = torch.device(device)
    prepare_process(threads, on, config.float_pixels(dataset.size))
    trainer = None
    try:
        trainer = build_trainer(config, dataset, on)
        trainer.advance(10**9, _Clock(trainer, 1, 0.0, 0.0))
        _look_seconds(trainer, dataset, evaluator)
        begin = gate()
        time.sleep(max(0.0, begin - time.time()))
        begun, seen = time.perf_counter(), trainer.nimg
        trainer.advance(10**9, lambda: time.time() >= begin + seconds)
        _wait(on)
        trained, images = time.perf_counter() - begun, trainer.nimg - seen
        return SharedGpuSample(images, trained, _look_seconds(trainer, dataset, evaluator))
    finally:
        del trainer
        release_memory(on)


def combined_speed(stretches: Sequence[SharedGpuSample]) -> TrialSpeed:
    """The pace of trials that trained at the same time.

    Raises:
        ValueError: none of them saw an image.
    """
    speed = sum(stretch.images / stretch.seconds for stretch in stretches)
    if not speed:
        raise ValueError("no image was seen")
    trials = len(stretches)
    return TrialSpeed(
        trials, 1000 * trials / speed, sum(stretch.eval_seconds for stretch in stretches) / trials
    )


def profiling_failure(error: BaseException, device: str) -> str:
    """Why the largest trial could not be measured, in a line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if is_out_of_memory(error):
        return f"the largest trial does not fit the {'GPU' if device == 'cuda' else 'memory'}: {lines[0]}"
    return f"the largest trial fails: {type(error).__name__}: {lines[0]}"


def _look_seconds(trainer: Trainer, dataset: Dataset, evaluator: Evaluator) -> float:
    """Seconds of a tick's reading and fid, with the copies and on the stream that a trial has them on."""
    begun, on = time.perf_counter(), trainer.device
    trainer.read_balance(torch.from_numpy(dataset.held).to(on), place_labels(dataset.held_labels, on))
    kept = cloned_state(trainer.state_dict()) if trainer.records_steps else None
    run_overlapped(lambda: evaluator.score(sampler(trainer.ema.generator, dataset)), on).result()
    del kept
    return time.perf_counter() - begun


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


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Clock:
    """Asked before every step whether to stop; begins to count after the warm ones.

    steps, least: so many steps and seconds are counted, unless they take longer than `most` seconds.
    """

    def __init__(self, trainer: Trainer, steps: int, least: float, most: float) -> None:
        self._trainer, self._steps, self._least, self._most = trainer, steps, least, most
        self._warm = _warm_steps(trainer)
        self._asked, self._begun, self._seen = 0, 0.0, 0
        self.seconds_per_kimg = 0.0

    def __call__(self) -> bool:
        self._asked += 1
        if self._asked == self._warm:
            self._settle()
        if self._asked == self._warm + 1:
            _wait(self._trainer.device)
            self._begun, self._seen = time.perf_counter(), self._trainer.nimg
        if self._asked <= self._warm + 1:
            return False
        gone = time.perf_counter() - self._begun
        enough = self._asked > self._warm + self._steps and gone >= self._least
        if not enough and gone <= self._most:
            return False
        _wait(self._trainer.device)
        seen = (self._trainer.nimg - self._seen) / 1000
        self.seconds_per_kimg = (time.perf_counter() - self._begun) / seen
        return True

    def _settle(self) -> None:
        """Forget the memory that recording has taken: the peak from here on is what a trial goes on with."""
        if self._trainer.device.type == "cuda":
            _wait(self._trainer.device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._trainer.device)
