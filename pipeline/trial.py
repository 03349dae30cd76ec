"""What one trial is: build, train a tick, measure, yield a record; and go on after an interruption.

Owns: the order of these steps and the trial's own memory (best so far). Refuses: Ray, MLflow, deciding
whether to stop for being worse than others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.balance import Reading, verdict
from pipeline.checkpoint import TrialFolder
from pipeline.config import TrialConfig
from pipeline.data import Dataset
from pipeline.errors import TrialError
from pipeline.fid import Evaluator
from pipeline.networks import Generator, to_uint8
from pipeline.process import prepare_process, release_memory
from pipeline.records import TrialRecord, objective_of
from pipeline.trainer import Trainer

EVALUATION_SEED = 20_151_205
"""Latents of every in-search fid, the same for all trials and ticks: differences are the networks'."""

_GRID = 50
_CHUNK = 250
_PIECES = 2  # of a batch, where memory is short


@dataclass
class _Progress:
    """What a trial remembers besides its networks."""

    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    best_fid: float | None = None
    best_kimg: int | None = None
    tick_seconds: float = 0.0  # of a tick that was interrupted


def run(
    config: TrialConfig,
    dataset: Dataset,
    evaluator: Evaluator,
    folder: Path,
    *,
    number: int = 0,
    device: str = "cpu",
    threads: int = 1,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[TrialRecord]:
    """Train and measure one trial, yielding a record per tick; resumes what `folder` holds.

    say: told of damaged checkpoints, of a full disk, of batches that had to be parted, of graphs that a
    GPU could not have.

    A trial that is told to stop keeps its tick as far as it has come. One that was interrupted first yields
    its last record again, so that whoever listens can catch up. A diverged tick is the last one: the trial
    ends with that verdict, without an exception.

    Raises:
        ConfigError: the configuration does not fit the images.
        TrialError: the device's memory is too small even for parts of a batch.
    """
    prepare_process(threads)
    on = torch.device(device)
    try:
        yield from _run(config, dataset, evaluator, TrialFolder(folder, say), number, on, should_stop, say)
    finally:
        release_memory(on)


def _run(
    config: TrialConfig,
    dataset: Dataset,
    evaluator: Evaluator,
    files: TrialFolder,
    number: int,
    on: torch.device,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> Iterator[TrialRecord]:
    trainer, progress, last = _begin(config, dataset, files, on, say)
    held = torch.from_numpy(dataset.held).to(trainer.device)
    held_labels = _on(dataset.held_labels, trainer.device)
    if last is not None:
        yield last
    for kimg in _ticks(config, after=0 if last is None else last.kimg):
        if last is not None and last.verdict == "diverged":
            return
        started, begun = time.perf_counter() - progress.tick_seconds, trainer.nimg
        progress.tick_seconds = 0.0
        if not _advance(trainer, kimg, should_stop):
            say(f"trial {number}: out of memory; from its last tick on, each batch in {_PIECES} parts")
            del trainer
            trainer, progress, last = _begin(config, dataset, files, on, say, _PIECES)
            _advance(trainer, kimg, should_stop)
        if should_stop():
            if trainer.nimg > begun:
                _store_midway(files, trainer, progress, last, started)
            return
        means = {**trainer.tally.read(), **trainer.settings()}  # the one wait for the device in a tick
        trained = time.perf_counter()
        reading = trainer.read_balance(held, held_labels)
        trainer.react(reading)
        word = verdict(reading, list(means.values()))
        fid = None if word == "diverged" else evaluator.score(sampler(trainer.ema.generator, dataset))
        improved = fid is not None and (progress.best_fid is None or fid < progress.best_fid)
        if improved:
            progress = replace(progress, best_fid=fid, best_kimg=kimg)
        seen = (kimg - (0 if last is None else last.kimg)) * 1000
        last = _record(number, kimg, word, fid, progress, reading, means, seen, started, trained)
        progress.train_seconds, progress.eval_seconds = last.train_seconds, last.eval_seconds
        _store(files, trainer, progress, last, dataset, improved)
        yield last
    files.flush()


def seed_of(sweep_seed: int, number: int) -> int:
    """The seed of trial `number` of a sweep."""
    return sweep_seed * 1_000_000 + number


def sampler(generator: Generator, dataset: Dataset, seed: int = EVALUATION_SEED) -> Callable[[int], Tensor]:
    """A function n -> the next n images uint8 (n,H,W,C) of a stream that begins at `seed`."""
    device = next(generator.parameters()).device
    rng = torch.Generator(device).manual_seed(seed)
    labels = _on(dataset.train_labels, device)

    @torch.inference_mode()
    def sample(count: int) -> Tensor:
        return to_uint8(draw(generator, count, rng, labels)[0])

    return sample


def draw(
    generator: Generator, count: int, rng: torch.Generator, data_labels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """`count` images (N,C,H,W) in [-1, 1] and their labels, as frequent as in `data_labels`."""
    z = torch.randn(count, generator.z_dim, generator=rng, device=rng.device)
    labels = None
    if generator.classes and data_labels is not None:
        labels = data_labels[torch.randint(len(data_labels), (count,), generator=rng, device=rng.device)]
    parts = [
        generator(z[i : i + _CHUNK], None if labels is None else labels[i : i + _CHUNK])
        for i in range(0, count, _CHUNK)
    ]
    return torch.cat(parts), labels


def _advance(trainer: Trainer, kimg: int, should_stop: Callable[[], bool]) -> bool:
    """Train a tick; False where memory was too small for whole batches."""
    try:
        trainer.advance(kimg, should_stop)
    except torch.OutOfMemoryError as error:
        if trainer.pieces == 1:
            return False
        config = trainer.config
        widths = f"width_g {config.width_g}, width_d {config.width_d}{_peak(trainer.device)}"
        raise TrialError(
            f"a trial fits its device, or {trainer.pieces} parts of a batch do; got batch_size "
            f"{config.batch_size}, {widths}; lower these, or give a trial more of a GPU"
        ) from error
    return True


def _has_room(size: int, device: torch.device) -> bool:
    """Whether the images may lie on the device: they leave half of its free memory to training."""
    return device.type != "cuda" or 2 * size <= torch.cuda.mem_get_info(device)[0]


def _peak(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    return f" and a peak of {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"


def _begin(
    config: TrialConfig,
    dataset: Dataset,
    files: TrialFolder,
    device: torch.device,
    say: Callable[[str], None],
    pieces: int = 1,
) -> tuple[Trainer, _Progress, TrialRecord | None]:
    release_memory(device)  # what an earlier trial of this process left
    images = torch.from_numpy(dataset.train)
    if _has_room(images.nbytes, device):
        images = images.to(device)
    labels = _on(dataset.train_labels, device) if config.conditional else None
    trainer = Trainer(config, images, labels, len(dataset.classes), device, say=say)
    trainer.pieces = pieces
    state = files.restore()
    if state is None:
        files.rewrite([])
        return trainer, _Progress(), None
    trainer.load_state_dict(state["trainer"])
    trainer.pieces = max(pieces, trainer.pieces)
    progress = _Progress(**state["progress"])
    if state["record"] is None:  # interrupted before its first record
        files.rewrite([])
        return trainer, progress, None
    last = TrialRecord.from_dict(state["record"])
    files.rewrite([*(r for r in files.records() if r.kimg < last.kimg), last])
    return trainer, progress, last


def _store(
    files: TrialFolder,
    trainer: Trainer,
    progress: _Progress,
    record: TrialRecord,
    dataset: Dataset,
    improved: bool,
) -> None:
    """Best generator first, then the checkpoint that knows of it, then the record that tells of both."""
    config, shape = trainer.config, trainer.shape
    if improved:
        best: dict[str, Any] = {"config": config.to_dict(), "shape": vars(shape), "kimg": record.kimg}
        files.save_best(
            record.kimg, {**best, "record": record.to_dict(), "ema": trainer.ema.generator.state_dict()}
        )
    if record.verdict != "diverged":
        files.save_grid(record.kimg, _grid(trainer, dataset))
    files.save(
        record.kimg,
        {"trainer": trainer.state_dict(), "progress": vars(progress), "record": record.to_dict()},
    )
    files.append(record)


def _store_midway(
    files: TrialFolder, trainer: Trainer, progress: _Progress, last: TrialRecord | None, started: float
) -> None:
    """A checkpoint within a tick that `started` then, beside the one of its beginning."""
    so_far = replace(progress, tick_seconds=time.perf_counter() - started)
    record = None if last is None else last.to_dict()
    state = {"trainer": trainer.state_dict(midway=True), "progress": vars(so_far), "record": record}
    files.save(trainer.nimg // 1000, state)


@torch.inference_mode()
def _grid(trainer: Trainer, dataset: Dataset) -> Tensor:
    """The same latents at every tick; a conditional G shows its classes in columns."""
    generator = trainer.ema.generator
    rng = torch.Generator(trainer.device).manual_seed(EVALUATION_SEED)
    z = torch.randn(_GRID, generator.z_dim, generator=rng, device=trainer.device)
    labels = torch.arange(_GRID, device=trainer.device) % max(generator.classes, 1)
    return to_uint8(generator(z, labels if generator.classes else None))


def _record(
    number: int,
    kimg: int,
    word: str,
    fid: float | None,
    progress: _Progress,
    reading: Reading,
    means: dict[str, float],
    seen: int,
    started: float,
    trained: float,
) -> TrialRecord:
    train = trained - started
    return TrialRecord(
        trial=number,
        kimg=kimg,
        verdict=word,
        objective=objective_of(progress.best_fid),
        fid=fid,
        best_fid=progress.best_fid,
        best_kimg=progress.best_kimg,
        images_per_sec=seen / max(train, 1e-9),
        train_seconds=progress.train_seconds + train,
        eval_seconds=progress.eval_seconds + time.perf_counter() - trained,
        **vars(reading),
        **means,
    )


def _ticks(config: TrialConfig, after: int) -> range | list[int]:
    """Whole kimg at which a trial reports; the last one is `config.kimg` itself."""
    ticks = list(range(config.tick_kimg, config.kimg, config.tick_kimg)) + [config.kimg]
    return [kimg for kimg in ticks if kimg > after]


def _on(labels: Any, device: torch.device) -> Tensor | None:
    return None if labels is None else torch.from_numpy(labels).to(device)
