"""Train one trial of a sweep again in this process, without Ray, and compare its records with the stored.

The sweep itself is not changed; reruns are written to `reruns/` in its folder.

On the same machine a trial on a CPU repeats every number exactly. Another number of cores rounds the
evaluator's sums differently, in about the tenth digit (`TOLERANCE` allows that). Another kind of machine, or
a GPU, rounds the training itself differently, and the difference grows with its length.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from pipeline.config import SweepPaths, TrialConfig
from pipeline.errors import SweepError
from pipeline.records import TrialRecord
from pipeline.storage.lock import sweep_lock
from pipeline.sweep.cleanup import check_sweep_dir
from pipeline.sweep.inputs import load_same_inputs
from pipeline.sweep.manifest import Manifest, read_existing
from pipeline.tracking.event_log import read_events
from pipeline.tracking.registry.pack import pick_device
from pipeline.training.checkpoint import read_records
from pipeline.training.seeds import extra_seed, trial_seed
from pipeline.training.trial import TrialSettings, run_trial

TOLERANCE = 1e-6
"""The relative difference up to which two numbers agree."""
_TIMES = ("images_per_sec", "train_seconds", "eval_seconds")


@dataclass(frozen=True)
class RerunRow:
    """One tick of a rerun beside the sweep's record of it, None where it has none at this kimg.

    differs: fields that do not agree: name -> (rerun's value, stored value).
    """

    record: TrialRecord
    stored: TrialRecord | None
    differs: dict[str, tuple[object, object]]


@dataclass(frozen=True)
class RerunResult:
    """One training of the trial. index: 0 for its own seed, 1.. for others. rows: its ticks, oldest first."""

    index: int
    seed: int
    folder: Path
    rows: tuple[RerunRow, ...]

    @property
    def compared(self) -> int:
        """Number of ticks that the sweep has stored as well."""
        return sum(row.stored is not None for row in self.rows)

    @property
    def agreed(self) -> int:
        """Number of ticks whose fields all agree, apart from times."""
        return sum(row.stored is not None and not row.differs for row in self.rows)

    @property
    def best_fid(self) -> float | None:
        """The lowest fid of its ticks; None without one."""
        return self.rows[-1].record.best_fid if self.rows else None


def rerun_trial(
    root: Path,
    number: int,
    *,
    kimg: int = 0,
    seeds: int = 0,
    on_row: Callable[[int, RerunRow], None] = lambda index, row: None,
) -> list[RerunResult]:
    """Train a trial of a sweep again; an interrupted rerun goes on, a complete one begins anew.

    Args:
        kimg: how far to train, in kimg; 0 = as far as the trial came.
        seeds: with how many other seeds to train it as well; they are those of the finalists.
        on_row: called with the index of the rerun and each tick as it is compared.

    Raises:
        SweepError: no sweep, no such trial, or the images or the evaluator are others by now.
    """
    paths = check_sweep_dir(root)
    manifest = read_existing(root, paths)
    config = trial_config(paths, manifest, number)
    inputs = load_same_inputs(paths, manifest)
    last = read_records(paths.trial(number))
    length = kimg or (last[-1].kimg if last else config.kimg)
    threads = max(1, int(manifest.config.cpus_per_trial))
    device = pick_device("auto", auto="cuda" if manifest.config.gpus_per_trial else "cpu")
    settings = TrialSettings(number=number, threads=threads, device=device)
    runs = []
    for index in range(seeds + 1):
        seed = extra_seed(config.seed, index) if index else config.seed
        changed = replace(extend_to(config, length), seed=seed)
        folder = paths.reruns / (f"{number}-{index}" if index else str(number))
        known = {record.kimg: record for record in read_records(paths.rerun(number, index))}
        rows = []
        with _rerun_dir(folder, length):
            done = read_records(folder)[:-1]  # of an interrupted rerun, whose last record is yielded again
            ticks = run_trial(changed, inputs.dataset, inputs.evaluator, folder, settings)
            for record in chain(done, ticks):
                rows.append(compare(record, known.get(record.kimg)))
                on_row(index, rows[-1])
                if record.kimg >= length:
                    break
        runs.append(RerunResult(index, seed, folder, tuple(rows)))
    return runs


def trial_config(paths: SweepPaths, manifest: Manifest, number: int) -> TrialConfig:
    """The configuration that trial `number` was trained with; SweepError where there is no such trial."""
    events = (event for _, event in read_events(paths.event_log)) if paths.event_log.is_file() else iter(())
    params = {event["trial"]: event["params"] for event in events if event and event["event"] == "start"}
    if number not in params:
        known = ", ".join(map(str, list(params)[:20])) or "none yet"
        raise SweepError("there is no trial {seen}", seen=number, fix=f"this sweep has {known}")
    config = manifest.space.config(params[number], seed=trial_seed(manifest.config.seed, number))
    records = read_records(paths.trial(number))
    # The sweep may have raised the interval between reports, at each of which random generators are reseeded.
    return replace(config, tick_kimg=records[0].kimg) if records else config


def extend_to(config: TrialConfig, kimg: int) -> TrialConfig:
    """The configuration with length `kimg` where that is longer; a cosine schedule keeps its length."""
    if kimg <= config.kimg:
        return config
    length = config.burn_in_kimg or (float(config.kimg) if config.schedule == "cosine" else 0.0)
    return replace(config, kimg=kimg, burn_in_kimg=length)


def compare(record: TrialRecord, stored: TrialRecord | None) -> RerunRow:
    """Compare a tick with the stored one; times never repeat and are not compared."""
    pairs = {name: (value, getattr(stored, name)) for name, value in vars(record).items()} if stored else {}
    differs = {name: pair for name, pair in pairs.items() if name not in _TIMES and not _same(*pair)}
    return RerunRow(record, stored, differs)


def _same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=TOLERANCE)
    return bool(a == b)


@contextlib.contextmanager
def _rerun_dir(folder: Path, length: int) -> Iterator[None]:
    """Lock the folder of a rerun; a rerun that was complete is deleted first."""
    done = read_records(folder)
    if done and (done[-1].kimg >= length or done[-1].verdict == "diverged"):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with sweep_lock(SweepPaths(folder)):
        yield
