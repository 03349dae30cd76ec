"""What one trial is: build, train a tick, measure, yield a record; and go on after an interruption.

Owns: the order of these steps and the trial's own memory (best so far). Refuses: Ray, MLflow, deciding
whether to stop for being worse than others.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.config import TrialConfig
from pipeline.data.dataset import Dataset
from pipeline.errors import TrialError
from pipeline.metrics.frechet import Evaluator
from pipeline.records import TrialRecord
from pipeline.training.balance import verdict
from pipeline.training.checkpoint import TrialFolder
from pipeline.training.events import EventKind, OnEvent, TrialEvent, log_event
from pipeline.training.networks.blocks import Generator
from pipeline.training.overlap import cloned_state, run_overlapped
from pipeline.training.prefetch import place_images, place_labels
from pipeline.training.process import is_out_of_memory, prepare_process, release_memory
from pipeline.training.sampling import grid, sampler
from pipeline.training.tick import RunState, Tick, record_of
from pipeline.training.trainer import Trainer

_PIECES = 2  # of a batch, where memory is short


def run_trial(
    config: TrialConfig,
    dataset: Dataset,
    evaluator: Evaluator,
    folder: Path,
    *,
    number: int = 0,
    device: str = "cpu",
    threads: int = 1,
    should_stop: Callable[[], bool] = lambda: False,
    on_event: OnEvent = log_event,
) -> Iterator[TrialRecord]:
    """Train and measure one trial, yielding a record per tick; resumes what `folder` holds.

    on_event: hears of damaged checkpoints, a full disk, batches that were split for lack of memory, CUDA graphs
    that could not be had.

    A trial that is told to stop keeps its tick as far as it has come. One that was interrupted first yields
    its last record again, so that whoever listens can catch up. A diverged tick is the last one: the trial
    ends with that verdict, without an exception.

    Raises:
        ConfigError: the configuration does not fit the images.
        TrialError: the device's memory is too small even for parts of a batch.
    """
    on = torch.device(device)
    prepare_process(threads, on, config.float_pixels(dataset.size))
    trial = None
    try:
        trial = _Trial(
            config, dataset, evaluator, TrialFolder(folder, on_event), number, on, should_stop, on_event
        )
        yield from trial.records()
    finally:
        if trial is not None:
            trial.close()
        del trial
        release_memory(on)


class _Trial:
    """One trial under way; `records` is its course."""

    def __init__(
        self,
        config: TrialConfig,
        dataset: Dataset,
        evaluator: Evaluator,
        files: TrialFolder,
        number: int,
        device: torch.device,
        should_stop: Callable[[], bool],
        on_event: OnEvent,
    ) -> None:
        self.config, self.dataset, self.evaluator, self.files = config, dataset, evaluator, files
        self.number, self.device, self.should_stop, self.on_event = number, device, should_stop, on_event
        self.trainer, self.progress, self.last = _begin(config, dataset, files, device, on_event)
        self.held = torch.from_numpy(dataset.held).to(self.trainer.device)
        self.held_labels = place_labels(dataset.held_labels, self.trainer.device)
        self.seconds = 0.0  # of the present tick's training
        self._begun = 0  # nimg at its beginning
        self._stopped, self._fits = False, True
        self._copy: Generator | None = None  # of the average, for what is measured beside training
        self._measuring: tuple[Tick, Future[tuple[TrialRecord, RunState]]] | None = None

    def records(self) -> Iterator[TrialRecord]:
        """Train, measure, yield; the record of a tick that is measured beside the next comes within that."""
        if self.last is not None:
            yield self.last
        for kimg in _ticks(self.config, after=0 if self.last is None else self.last.kimg):
            if self.last is not None and self.last.verdict == "diverged":
                return
            yield from self._train(kimg)
            if self._stopped:
                waiting = [self._wait()] if self._measuring is not None else []
                self._keep_midway()
                yield from waiting
                return
            tick = self._end(kimg)
            if self._copy is not None and tick.generator is self._copy:
                work = functools.partial(self._measure, tick)
                self._measuring = tick, run_overlapped(work, self.trainer.device)
            else:
                yield self._take(self._measure(tick))
        self.files.flush()

    def close(self) -> None:
        """Wait for what is under way."""
        if self._measuring is not None:
            wait([self._measuring[1]])

    def _train(self, kimg: int) -> Iterator[TrialRecord]:
        """Train up to `kimg`, or until told to stop, and give the record of the tick before meanwhile."""
        self.seconds, self._begun = self.progress.tick_seconds, self.trainer.nimg
        while True:
            started = time.perf_counter()
            self._fits = self._advance(kimg)
            self.seconds += time.perf_counter() - started
            self._stopped = self.should_stop()
            if self._stopped:
                return
            whole = self._fits and self.trainer.nimg >= kimg * 1000
            if self._measuring is not None and (self._measured() or whole or not self._fits):
                yield self._wait()
            if whole:
                return
            if not self._fits:
                self._restart()

    def _advance(self, kimg: int) -> bool:
        """Train until a record waits to be given; False where memory was too small for whole batches."""
        try:
            self.trainer.advance(kimg, lambda: self.should_stop() or self._measured())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _restart(self) -> None:
        """From the last tick on, with less memory; TrialError where that was tried."""
        if self.trainer.pieces > 1:
            raise TrialError(_too_large(self.trainer))
        again = f"from its last tick on, each batch in {_PIECES} parts"
        self.on_event(TrialEvent(EventKind.OUT_OF_MEMORY, f"out of memory; {again}"))
        del self.trainer  # its memory is needed
        self.trainer, self.progress, self.last = _begin(
            self.config, self.dataset, self.files, self.device, self.on_event, _PIECES
        )
        self.seconds, self._begun = self.progress.tick_seconds, self.trainer.nimg

    def _end(self, kimg: int) -> Tick:
        """Read a tick that was trained, and answer it; nothing of it is measured or saved yet."""
        trainer, started = self.trainer, time.perf_counter()
        means = {**trainer.tally.read(), **trainer.settings()}  # waits for the device
        trained = time.perf_counter()
        self.seconds += trained - started
        reading = trainer.read_balance(self.held, self.held_labels)
        trainer.react(reading)
        word = verdict(reading, list(means.values()))
        seen = (kimg - (0 if self.last is None else self.last.kimg)) * 1000
        generator, state = trainer.ema.generator, trainer.state_dict()
        if trainer.records_steps and word != "diverged" and kimg < self.config.kimg:
            generator, state = self._copied(generator, state)
        tick = (self.seconds, time.perf_counter() - trained)
        self.progress = replace(self.progress, tick_seconds=0.0)  # it has them
        return Tick(kimg, word, reading, means, seen, *tick, generator, state)

    def _copied(self, generator: Generator, state: dict[str, Any]) -> tuple[Generator, dict[str, Any]]:
        """What training leaves as it is; the originals where there is no memory for that."""
        try:
            if self._copy is None:
                self._copy = copy.deepcopy(generator)
            self._copy.load_state_dict(generator.state_dict())
            return self._copy, cloned_state(state)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return generator, state

    def _measure(self, tick: Tick) -> tuple[TrialRecord, RunState]:
        """The tick's record, with all that belongs to it on disk."""
        started, progress = time.perf_counter(), self.progress
        sample = sampler(tick.generator, self.dataset)
        fid = None if tick.word == "diverged" else self.evaluator.score(sample)
        improved = fid is not None and (progress.best_fid is None or fid < progress.best_fid)
        progress = RunState(
            train_seconds=progress.train_seconds + tick.train_seconds,
            eval_seconds=progress.eval_seconds + tick.read_seconds + time.perf_counter() - started,
            best_fid=fid if improved else progress.best_fid,
            best_kimg=tick.kimg if improved else progress.best_kimg,
        )
        record = record_of(self.number, tick, fid, progress)
        self._store(tick, record, progress, improved)
        return record, progress

    def _store(self, tick: Tick, record: TrialRecord, progress: RunState, improved: bool) -> None:
        """Best generator first, then the checkpoint that knows of it, then the record that tells of both."""
        shape = vars(self.trainer.shape)
        if improved:
            best: dict[str, Any] = {"config": self.config.to_dict(), "shape": shape, "kimg": tick.kimg}
            found = {"record": record.to_dict(), "ema": tick.generator.state_dict()}
            self.files.save_best(tick.kimg, {**best, **found})
        if record.verdict != "diverged":
            self.files.save_grid(tick.kimg, grid(tick.generator))
        state = {"trainer": tick.state, "progress": asdict(progress), "record": record.to_dict()}
        self.files.save(tick.kimg, state)
        self.files.append(record)

    def _keep_midway(self) -> None:
        """A checkpoint within a tick, beside the one of its beginning."""
        if self.trainer.nimg <= self._begun or not self._fits:
            return
        so_far = replace(self.progress, tick_seconds=self.seconds)
        record = None if self.last is None else self.last.to_dict()
        state = {
            "trainer": self.trainer.state_dict(midway=True),
            "progress": asdict(so_far),
            "record": record,
        }
        self.files.save(self.trainer.nimg // 1000, state)

    def _measured(self) -> bool:
        return self._measuring is not None and self._measuring[1].done()

    def _wait(self) -> TrialRecord:
        """The record of the tick that is measured beside training."""
        assert self._measuring is not None
        tick, future = self._measuring
        self._measuring = None
        try:
            found = future.result()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            found = None
        if found is None:  # alone, without the memory of recorded steps and of the attempt
            del future
            self.trainer.release()
            found = self._measure(tick)
        return self._take(found)

    def _take(self, found: tuple[TrialRecord, RunState]) -> TrialRecord:
        self.last, self.progress = found
        return self.last


def _too_large(trainer: Trainer) -> str:
    config = trainer.config
    widths = f"width_g {config.width_g}, width_d {config.width_d}{_peak(trainer.device)}"
    return (
        f"a trial fits its device, or {trainer.pieces} parts of a batch do; got batch_size "
        f"{config.batch_size}, {widths}; lower these, or give a trial more of a GPU"
    )


def _peak(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    return f" and a peak of {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"


def build_trainer(
    config: TrialConfig, dataset: Dataset, device: torch.device, on_event: OnEvent = log_event
) -> Trainer:
    """A fresh trainer on the training split; on_event: hears, once, why its steps are not recorded."""
    labels = place_labels(dataset.train_labels, device) if config.conditional else None
    return Trainer(
        config, place_images(dataset.train, device), labels, len(dataset.classes), device, on_event=on_event
    )


def _begin(
    config: TrialConfig,
    dataset: Dataset,
    files: TrialFolder,
    device: torch.device,
    on_event: OnEvent,
    pieces: int = 1,
) -> tuple[Trainer, RunState, TrialRecord | None]:
    release_memory(device)  # what an earlier trial of this process left
    trainer = build_trainer(config, dataset, device, on_event)
    trainer.pieces = pieces
    state = files.restore()
    if state is None:
        files.rewrite([])
        return trainer, RunState(), None
    trainer.load_state_dict(state["trainer"])
    trainer.pieces = max(pieces, trainer.pieces)
    progress = RunState(**state["progress"])
    if state["record"] is None:  # interrupted before its first record
        files.rewrite([])
        return trainer, progress, None
    last = TrialRecord.from_dict(state["record"])
    files.rewrite([*(r for r in files.records() if r.kimg < last.kimg), last])
    return trainer, progress, last


def _ticks(config: TrialConfig, after: int) -> range | list[int]:
    """Whole kimg at which a trial reports; the last one is `config.kimg` itself."""
    ticks = list(range(config.tick_kimg, config.kimg, config.tick_kimg)) + [config.kimg]
    return [kimg for kimg in ticks if kimg > after]
