"""Time and memory of a trial, measured in a few real steps of it.

To be run in a process of its own: on a CPU the memory that is measured is that of the whole process.
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
from pipeline.training.cuda_graphs import WARM_UP_STEPS
from pipeline.training.overlap import cloned_state, run_overlapped
from pipeline.training.prefetch import place_labels
from pipeline.training.process import is_out_of_memory, prepare_process, release_memory
from pipeline.training.sampling import image_sampler
from pipeline.training.trainer import Trainer
from pipeline.training.trial import build_trainer
from pipeline.training.trial_speed import TrialSpeed

UNTIMED_STEPS = 3
"""First steps on a CPU that are not timed: allocations, choice of kernels."""
MIN_TIMED_SEC = 2.0
"""Seconds of training that are timed on a GPU, whose steps are too short to be timed one by one."""


@dataclass(frozen=True)
class TrialProfile:
    """Time and memory of one trial.

    seconds_per_kimg: of training. eval_seconds: of one fid. memory_bytes: the peak, of torch on a GPU and of
    the process on a CPU. device: `cpu` or the GPU's name. device_bytes: memory of the GPU, 0 = a CPU.
    """

    seconds_per_kimg: float
    eval_seconds: float
    memory_bytes: int
    device: str
    device_bytes: int = 0

    @property
    def speed(self) -> TrialSpeed:
        """The speed of the trial, alone on its device."""
        return TrialSpeed(1, self.seconds_per_kimg, self.eval_seconds)


def profile_trial(
    config: TrialConfig,
    dataset: Dataset,
    evaluator: Evaluator,
    device: str,
    threads: int,
    seconds: float = 20.0,
) -> TrialProfile:
    """Train some steps of `config`, for at most about `seconds`, and measure one fid of the result.

    All memory of the GPU is free again afterwards. The profile has the memory of steady training and of a
    fid, without what the capture of CUDA graphs takes for a moment.
    """
    torch_device = torch.device(device)
    on_gpu = torch_device.type == "cuda"
    prepare_process(threads, torch_device, config.float_pixels(dataset.size))
    trainer = timer = None
    try:
        trainer = build_trainer(config, dataset, torch_device)
        timer = _StepTimer(trainer, min(MIN_TIMED_SEC, seconds) if on_gpu else 0.0, seconds)
        trainer.advance(10**9, timer)
        if on_gpu:  # the first evaluation also loads kernels
            _evaluation_seconds(trainer, dataset, evaluator)
        eval_seconds = _evaluation_seconds(trainer, dataset, evaluator)
        if not on_gpu:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            return TrialProfile(timer.seconds_per_kimg, eval_seconds, memory, "cpu")
        memory = torch.cuda.max_memory_reserved(torch_device)
        total = torch.cuda.get_device_properties(torch_device).total_memory
        name = torch.cuda.get_device_name(torch_device)
        return TrialProfile(timer.seconds_per_kimg, eval_seconds, memory, name, total)
    finally:
        del trainer, timer
        release_memory(torch_device)


@dataclass(frozen=True)
class SharedGpuSample:
    """What one of several trials did while all trained on one GPU.

    images: reals shown to D in `seconds` of training. eval_seconds: of the fid after that.
    """

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
    """Train while others do: from a common moment for `seconds`, and then measure a fid as they do.

    gate: called once this trial is warmed up; waits for the others, and returns the moment (as of
    `time.time`).
    """
    torch_device, trainer = torch.device(device), None
    prepare_process(threads, torch_device, config.float_pixels(dataset.size))
    try:
        trainer = build_trainer(config, dataset, torch_device)
        trainer.advance(10**9, _StepTimer(trainer, min_seconds=0.0, max_seconds=0.0))
        _evaluation_seconds(trainer, dataset, evaluator)
        begin = gate()
        time.sleep(max(0.0, begin - time.time()))
        started, nimg = time.perf_counter(), trainer.nimg
        trainer.advance(10**9, lambda: time.time() >= begin + seconds)
        _synchronize(torch_device)
        trained = time.perf_counter() - started
        return SharedGpuSample(trainer.nimg - nimg, trained, _evaluation_seconds(trainer, dataset, evaluator))
    finally:
        del trainer
        release_memory(torch_device)


def combined_speed(samples: Sequence[SharedGpuSample]) -> TrialSpeed:
    """The speed of trials that trained at the same time; each was shown images."""
    trials = len(samples)
    images_per_sec = sum(sample.images / sample.seconds for sample in samples)
    eval_seconds = sum(sample.eval_seconds for sample in samples) / trials
    return TrialSpeed(trials, 1000 * trials / images_per_sec, eval_seconds)


def profiling_failure(error: BaseException, device: str) -> str:
    """One line on why the largest trial could not be measured."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if is_out_of_memory(error):
        return f"the largest trial does not fit the {'GPU' if device == 'cuda' else 'memory'}: {lines[0]}"
    return f"the largest trial fails: {type(error).__name__}: {lines[0]}"


def _evaluation_seconds(trainer: Trainer, dataset: Dataset, evaluator: Evaluator) -> float:
    """Seconds of a tick's balance reading and fid, with the copies and the stream of a real trial."""
    started, device = time.perf_counter(), trainer.device
    trainer.read_balance(torch.from_numpy(dataset.held).to(device), place_labels(dataset.held_labels, device))
    copies = cloned_state(trainer.state_dict()) if trainer.uses_cuda_graphs else None
    run_overlapped(lambda: evaluator.score(image_sampler(trainer.ema.generator, dataset)), device).result()
    del copies
    return time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _StepTimer:
    """The `should_stop` of a profile: times the steps after the untimed ones, and then stops.

    Stops after enough steps and `min_seconds`, but in any case after `max_seconds`.
    """

    def __init__(self, trainer: Trainer, min_seconds: float, max_seconds: float) -> None:
        self._trainer, self._min_seconds, self._max_seconds = trainer, min_seconds, max_seconds
        config, self._untimed = trainer.config, UNTIMED_STEPS
        interval = config.penalty_interval if config.penalty != "none" else 1
        if (
            trainer.device.type == "cuda"
        ):  # until the rarest kind of step, G's update and the penalty, is captured
            self._untimed = max(UNTIMED_STEPS, (WARM_UP_STEPS + 2) * math.lcm(config.n_critic, interval))
        self._steps = max(8, 2 * config.n_critic, interval)  # updates of D and of G, and a lazy penalty
        self._calls, self._started, self._nimg = 0, 0.0, 0
        self.seconds_per_kimg = 0.0

    def __call__(self) -> bool:
        self._calls += 1
        if self._calls == self._untimed:
            self._reset_peak_memory()
        if self._calls == self._untimed + 1:
            _synchronize(self._trainer.device)
            self._started, self._nimg = time.perf_counter(), self._trainer.nimg
        if self._calls <= self._untimed + 1:
            return False
        passed = time.perf_counter() - self._started
        enough = self._calls > self._untimed + self._steps and passed >= self._min_seconds
        if not enough and passed <= self._max_seconds:
            return False
        _synchronize(self._trainer.device)
        kimg = (self._trainer.nimg - self._nimg) / 1000
        self.seconds_per_kimg = (time.perf_counter() - self._started) / kimg
        return True

    def _reset_peak_memory(self) -> None:
        """Leave out the memory of the captures: the peak from here on is that of the rest of a trial."""
        if self._trainer.device.type == "cuda":
            _synchronize(self._trainer.device)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._trainer.device)
