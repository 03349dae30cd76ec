"""One trial: build the networks, train a tick, measure it, yield its record; resume after an interruption.

Not responsible for Ray, MLflow, or the decision to stop a trial that is worse than others.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import TrialError
from pipeline.metrics.frechet import Evaluator
from pipeline.records import TrialRecord, objective_of
from pipeline.storage.readable import readable_memory
from pipeline.training.balance import verdict
from pipeline.training.checkpoint import TrialFolder
from pipeline.training.events import EventKind, OnEvent, TrialEvent, log_event
from pipeline.training.networks.blocks import Generator
from pipeline.training.overlap import cloned_state, run_overlapped
from pipeline.training.prefetch import place_images, place_labels
from pipeline.training.process import is_out_of_memory, prepare_process, release_memory
from pipeline.training.sampling import image_sampler, sample_grid
from pipeline.training.states import BestState, TrainerState, trial_state
from pipeline.training.trainer import Trainer

_GRAD_ACCUM_STEPS = 2  # where memory is too small for whole batches


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """How a trial runs, apart from its configuration.

    number: Optuna's number of the trial. device: `cpu` or a GPU of torch's. threads: of the CPU, at least 1.
    should_stop: asked before each step. on_event: receives an event for a damaged checkpoint, a full disk and
    its end, batches that are split for lack of memory, and CUDA graphs that cannot be used.
    """

    number: int = 0
    device: str = "cpu"
    threads: int = 1
    should_stop: Callable[[], bool] = lambda: False
    on_event: OnEvent = log_event


def run_trial(
    config: TrialConfig,
    dataset: Dataset,
    evaluator: Evaluator,
    folder: Path,
    settings: TrialSettings = TrialSettings(),
) -> Iterator[TrialRecord]:
    """Train and measure one trial, yielding a record per tick; resumes from the checkpoints in `folder`.

    A trial that is stopped saves a mid-tick checkpoint. A resumed trial first yields its last record again,
    for callers that missed it. A diverged tick is the last one: the trial ends with that verdict, without an
    exception.

    Raises:
        ConfigError: the configuration does not fit the images, or the user's own code cannot be loaded.
        TrialError: the device's memory is too small even for split batches.
    """
    device = torch.device(settings.device)
    prepare_process(settings.threads, device, config.float_pixels(dataset.size))
    trial = None
    try:
        trial = _Trial(config, dataset, evaluator, TrialFolder(folder, settings.on_event), settings)
        yield from trial.records()
    finally:
        if trial is not None:
            trial.close()
        del trial
        release_memory(device)


@dataclass(frozen=True)
class _Tick:
    """A trained tick: its record without a fid, and the EMA of G and the trainer's state at its end."""

    record: TrialRecord
    generator: Generator
    state: TrainerState


class _Trial:
    """A running trial; `records` trains and measures it."""

    def __init__(
        self,
        config: TrialConfig,
        dataset: Dataset,
        evaluator: Evaluator,
        files: TrialFolder,
        settings: TrialSettings,
    ) -> None:
        self.config, self.dataset, self.evaluator, self.files = config, dataset, evaluator, files
        self.settings, self.device = settings, torch.device(settings.device)
        self.last: TrialRecord | None = None
        self._start_or_resume()
        self.held = place_images(dataset.held, self.trainer.device)
        self.held_labels = place_labels(dataset.held_labels, self.trainer.device)
        self._stopped, self._fits_memory = False, True
        self._ema_copy: Generator | None = None  # what is measured while training continues
        self._pending: tuple[_Tick, Future[TrialRecord]] | None = None

    def records(self) -> Iterator[TrialRecord]:
        """Train, measure, yield. A tick that is measured during the next one is yielded within that."""
        if self.last is not None:
            yield self.last
        ticks = [*range(self.config.tick_kimg, self.config.kimg, self.config.tick_kimg), self.config.kimg]
        for kimg in [kimg for kimg in ticks if kimg > self._last_kimg]:
            if self.last is not None and self.last.verdict == "diverged":
                return
            yield from self._train(kimg)
            if self._stopped:
                waiting = [self._await_record()] if self._pending is not None else []
                self._save_mid_tick()
                yield from waiting
                return
            tick = self._finish_tick(kimg)
            if self._ema_copy is not None and tick.generator is self._ema_copy:
                work = functools.partial(self._measure, tick)
                self._pending = tick, run_overlapped(work, self.trainer.device)
            else:
                self.last = self._measure(tick)
                yield self.last
        self.files.flush()

    def close(self) -> None:
        """Wait for a measurement that is still running."""
        if self._pending is not None:
            wait([self._pending[1]])

    def _start_or_resume(self, grad_accum_steps: int = 1) -> None:
        """Set the trainer, the last record and the tick's time: from the newest checkpoint, or new ones."""
        release_memory(self.device)  # of an earlier trial of this process
        self.trainer = build_trainer(self.config, self.dataset, self.device, self.settings.on_event)
        self.last, self.seconds = None, 0.0  # seconds: of training in the current tick
        state = self.files.restore()
        if state is not None:
            self.trainer.load_state_dict(state["trainer"])
            self.seconds = state["progress"].get("tick_seconds", 0.0)
            # No record: interrupted before the first one.
            self.last = None if state["record"] is None else TrialRecord.from_dict(state["record"])
        self._nimg_at_start = self.trainer.nimg  # of the current tick, in this process
        self.trainer.grad_accum_steps = max(grad_accum_steps, self.trainer.grad_accum_steps)
        kept = [] if self.last is None else [r for r in self.files.records() if r.kimg < self.last.kimg]
        self.files.rewrite(kept if self.last is None else [*kept, self.last])

    def _train(self, kimg: int) -> Iterator[TrialRecord]:
        """Train up to `kimg`, or until stopped; yield the record of the tick before when it is measured."""
        self._nimg_at_start = self.trainer.nimg
        while True:
            started = time.perf_counter()
            self._fits_memory = self._advance(kimg)
            self.seconds += time.perf_counter() - started
            self._stopped = self.settings.should_stop()
            if self._stopped:
                return
            complete = self._fits_memory and self.trainer.nimg >= kimg * 1000
            if self._pending is not None and (self._record_ready() or complete or not self._fits_memory):
                yield self._await_record()
            if complete:
                return
            if not self._fits_memory:
                self._restart()

    def _advance(self, kimg: int) -> bool:
        """Train until a record is ready; False where memory was too small for whole batches."""
        try:
            self.trainer.advance(kimg, lambda: self.settings.should_stop() or self._record_ready())
            return True
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False

    def _restart(self) -> None:
        """Restart at the last checkpoint with split batches; TrialError where that was tried before."""
        if self.trainer.grad_accum_steps > 1:
            raise TrialError(_too_large(self.trainer))
        restart = f"the trial restarts from its last tick with each batch in {_GRAD_ACCUM_STEPS} parts"
        self.settings.on_event(TrialEvent(EventKind.OUT_OF_MEMORY, f"out of memory; {restart}"))
        del self.trainer  # its memory is needed
        self._start_or_resume(_GRAD_ACCUM_STEPS)

    def _finish_tick(self, kimg: int) -> _Tick:
        """Read the balance of a trained tick and adapt to it; no fid is measured and nothing saved yet."""
        trainer, started = self.trainer, time.perf_counter()
        means = {**trainer.metrics.read(), **trainer.adaptive_settings()}  # waits for the device
        trained = time.perf_counter()
        self.seconds += trained - started
        reading = trainer.read_balance(self.held, self.held_labels)
        trainer.adapt(reading)
        tick_verdict = verdict(reading, list(means.values()))
        generator, state = trainer.ema.generator, trainer.state_dict()
        if trainer.uses_cuda_graphs and tick_verdict != "diverged" and kimg < self.config.kimg:
            generator, state = self._copies(generator, state)
        last, seconds, self.seconds = self.last, self.seconds, 0.0
        best_fid, best_kimg = (None, None) if last is None else (last.best_fid, last.best_kimg)
        record = TrialRecord(
            trial=self.settings.number,
            kimg=kimg,
            verdict=tick_verdict,
            objective=objective_of(best_fid),
            fid=None,
            best_fid=best_fid,
            best_kimg=best_kimg,
            images_per_sec=1000 * (kimg - self._last_kimg) / max(seconds, 1e-9),
            train_seconds=seconds + (0.0 if last is None else last.train_seconds),
            eval_seconds=time.perf_counter() - trained + (0.0 if last is None else last.eval_seconds),
            **vars(reading),
            **means,
        )
        return _Tick(record, generator, state)

    def _copies(self, generator: Generator, state: TrainerState) -> tuple[Generator, TrainerState]:
        """Copies that training does not change; the originals where memory is too small for copies."""
        try:
            if self._ema_copy is None:
                self._ema_copy = copy.deepcopy(generator)
            self._ema_copy.load_state_dict(generator.state_dict())
            return self._ema_copy, cloned_state(state)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return generator, state

    def _measure(self, tick: _Tick) -> TrialRecord:
        """Measure the tick's fid and write its files; returns its record."""
        started, record = time.perf_counter(), tick.record
        sample = image_sampler(tick.generator, self.dataset)
        fid = None if record.verdict == "diverged" else self.evaluator.score(sample)
        if fid is not None and (record.best_fid is None or fid < record.best_fid):
            record = replace(record, best_fid=fid, best_kimg=record.kimg, objective=objective_of(fid))
        seconds = record.eval_seconds + time.perf_counter() - started
        record = replace(record, fid=fid, eval_seconds=seconds)
        self._save(tick, record)
        return record

    def _save(self, tick: _Tick, record: TrialRecord) -> None:
        """Write the best generator, then the checkpoint that names it, then the record that names both."""
        if record.best_kimg == record.kimg:
            best: BestState = {
                "config": self.config.to_dict(),
                "shape": vars(self.trainer.shape),
                "kimg": record.kimg,
                "record": record.to_dict(),
                "ema": tick.generator.state_dict(),
            }
            self.files.save_best(record.kimg, best)
        if record.verdict != "diverged":
            self.files.save_grid(record.kimg, sample_grid(tick.generator))
        self.files.save(record.kimg, trial_state(tick.state, record))
        self.files.append(record)

    def _save_mid_tick(self) -> None:
        """Write a mid-tick checkpoint; the one of the tick's start stays."""
        if self.trainer.nimg <= self._nimg_at_start or not self._fits_memory:
            return
        state = trial_state(self.trainer.state_dict(mid_tick=True), self.last, self.seconds)
        self.files.save(self.trainer.nimg // 1000, state)

    @property
    def _last_kimg(self) -> int:
        return 0 if self.last is None else self.last.kimg

    def _record_ready(self) -> bool:
        return self._pending is not None and self._pending[1].done()

    def _await_record(self) -> TrialRecord:
        """The record of the tick that is measured while training continues."""
        assert self._pending is not None
        tick, future = self._pending
        self._pending = None
        try:
            found = future.result()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            found = None
        if found is None:  # again, without the memory of the CUDA graphs and of the failed measurement
            del future
            self.trainer.drop_graphs()
            found = self._measure(tick)
        self.last = found
        return found


def _too_large(trainer: Trainer) -> str:
    config, peak = trainer.config, ""
    if trainer.device.type == "cuda":
        peak = f" and a peak of {readable_memory(torch.cuda.max_memory_allocated(trainer.device))}"
    return (
        f"the device's memory is too small even for batches in {trainer.grad_accum_steps} parts: "
        f"batch_size {config.batch_size}, width_g {config.width_g}, width_d {config.width_d}{peak}; "
        "lower these, or give a trial more of a GPU"
    )


def build_trainer(
    config: TrialConfig, dataset: Dataset, device: torch.device, on_event: OnEvent = log_event
) -> Trainer:
    """A new trainer on the training split. on_event: receives one event if CUDA graphs are disabled."""
    labels = place_labels(dataset.train_labels, device) if config.conditional else None
    return Trainer(
        config, place_images(dataset.train, device), labels, len(dataset.classes), device, on_event=on_event
    )
