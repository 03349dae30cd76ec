"""One trial of a sweep again, outside of it: in this process, without Ray, record by record.

Owns: what a trial of a sweep was made of, and the comparison of two of its runs. Refuses: changing the sweep.

On the same machine a CPU trial repeats every number exactly. Another number of cores rounds the evaluator's
sums otherwise, in the tenth digit or so (`TOLERANCE` allows that); another kind of machine, or a GPU, rounds
the game itself otherwise, and the difference grows with its length.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.config import SweepConfig, SweepPaths, TrialConfig
from pipeline.data.dataset import Dataset, load_dataset
from pipeline.errors import SweepError
from pipeline.metrics import extractors, frechet
from pipeline.records import TrialRecord
from pipeline.search.space.parser import space_from_tables
from pipeline.storage.lock import sweep_lock
from pipeline.sweep.cleanup import check_sweep_dir
from pipeline.sweep.manifest import check_same_data, measured_facts, read_manifest
from pipeline.sweep.preflight import possible_values
from pipeline.tracking.event_log import read_events
from pipeline.tracking.registry.pack import pick_device
from pipeline.training import finalists, trial
from pipeline.training.checkpoint import read_records
from pipeline.training.networks.custom import hashes, use_code
from pipeline.training.seeds import seed_of

TOLERANCE = 1e-6
"""Two numbers agree that differ by no more than this share of the larger one."""
_TIMES = ("images_per_sec", "train_seconds", "eval_seconds")


@dataclass(frozen=True)
class RerunRow:
    """One tick of a rerun beside what the sweep stored. differs: name -> (here, stored)."""

    record: TrialRecord
    stored: TrialRecord | None
    differs: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class RerunResult:
    """One training. index: 0 is the trial's own seed. rows: what its ticks said, oldest first."""

    index: int
    seed: int
    folder: Path
    rows: tuple[RerunRow, ...]

    @property
    def compared(self) -> int:
        """Ticks that the sweep has stored as well."""
        return sum(row.stored is not None for row in self.rows)

    @property
    def agreed(self) -> int:
        """Ticks all of whose numbers but the times agree."""
        return sum(row.stored is not None and not row.differs for row in self.rows)

    @property
    def best_fid(self) -> float | None:
        """The lowest fid of its ticks."""
        return self.rows[-1].record.best_fid if self.rows else None


def rerun_trial(
    root: Path,
    number: int,
    *,
    kimg: int = 0,
    seeds: int = 0,
    on_row: Callable[[int, RerunRow], None] = lambda index, row: None,
) -> list[RerunResult]:
    """Train trial `number` of the sweep in `root` again, as far as it came or for `kimg`.

    seeds: also with as many other seeds, those of the finals. on_row: told of every tick at once. Works in
    `reruns/` of the sweep's folder; goes on where it was interrupted, and begins anew where it was done.

    Raises:
        SweepError: no sweep, no such trial, or the images or the evaluator are others by now.
    """
    paths = check_sweep_dir(root)
    stored = read_manifest(paths)
    assert stored is not None
    config = config_of(paths, stored, number)
    dataset, evaluator = _loaded(paths, stored)
    last = read_records(paths.trial(number))
    until = kimg or (last[-1].kimg if last else config.kimg)
    with_gpu = stored["sweep"].get("gpus_per_trial", -1) != 0
    machine: dict[str, Any] = {
        "threads": max(1, int(stored["sweep"].get("cpus_per_trial", 1))),
        "device": pick_device("auto", auto="cuda" if with_gpu else "cpu"),
    }
    runs = []
    for index in range(seeds + 1):
        seed = finalists.other_seed(config.seed, index) if index else config.seed
        asked = replace(lengthened(config, until), seed=seed)
        folder = paths.root / "reruns" / (f"{number}-{index}" if index else str(number))
        known = {record.kimg: record for record in read_records(paths.rerun(number, index))}
        rows = []
        with _fresh(folder, until):
            done = read_records(folder)[:-1]  # interrupted before: the trial yields its last one again
            ticks = trial.run_trial(asked, dataset, evaluator, folder, number=number, **machine)
            for record in _until(until, chain(done, ticks)):
                rows.append(compare(record, known.get(record.kimg)))
                on_row(index, rows[-1])
        runs.append(RerunResult(index, seed, folder, tuple(rows)))
    return runs


def config_of(paths: SweepPaths, stored: dict[str, Any], number: int) -> TrialConfig:
    """What trial `number` was trained with.

    Raises:
        SweepError: there is no such trial.
    """
    events = (event for _, event in read_events(paths.spool)) if paths.spool.is_file() else iter(())
    params = {event["trial"]: event["params"] for event in events if event and event["event"] == "start"}
    if number not in params:
        known = ", ".join(map(str, sorted(params)[:20])) or "none yet"
        raise SweepError("TRIAL is the number of a trial", seen=number, fix=f"this sweep has {known}")
    space = space_from_tables(stored["space"], "sweep.toml")
    seed = seed_of(stored["sweep"]["seed"], number)
    config = TrialConfig.from_dict({**space.fixed, **params[number], "seed": seed})
    records = read_records(paths.trial(number))
    # The sweep may have raised the interval between reports, at each of which the generators are seeded anew.
    return replace(config, tick_kimg=records[0].kimg) if records else config


def lengthened(config: TrialConfig, kimg: int) -> TrialConfig:
    """The configuration for `kimg` where that is longer; a cosine keeps the length that it had."""
    if kimg <= config.kimg:
        return config
    length = config.burn_in_kimg or (float(config.kimg) if config.schedule == "cosine" else 0.0)
    return replace(config, kimg=kimg, burn_in_kimg=length)


def compare(record: TrialRecord, stored: TrialRecord | None) -> RerunRow:
    """A tick beside the stored one; times are never the same and do not count."""
    if stored is None:
        return RerunRow(record, None, {})
    pairs = {name: (value, getattr(stored, name)) for name, value in vars(record).items()}
    differs = {name: pair for name, pair in pairs.items() if name not in _TIMES and not _same(*pair)}
    return RerunRow(record, stored, differs)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=TOLERANCE)
    return bool(a == b)


def _until(kimg: int, records: Iterable[TrialRecord]) -> Iterator[TrialRecord]:
    for record in records:
        yield record
        if record.kimg >= kimg:
            return


@contextlib.contextmanager
def _fresh(folder: Path, until: int) -> Iterator[None]:
    """Hold the folder of a rerun; one that was done is begun anew."""
    before = read_records(folder)
    if before and (before[-1].kimg >= until or before[-1].verdict == "diverged"):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with sweep_lock(SweepPaths(folder)):
        yield


def _loaded(paths: SweepPaths, stored: dict[str, Any]) -> tuple[Dataset, frechet.Evaluator]:
    """The sweep's images and evaluator, or SweepError where they are others by now."""
    config, space = SweepConfig.from_dict(stored["sweep"]), space_from_tables(stored["space"], "sweep.toml")
    dataset = load_dataset(config.data, image_size=config.image_size)
    use_code(paths.code)
    own = hashes([*possible_values(space, "architecture"), config.extractor], paths.code)
    extractor = extractors.build_extractor(
        config.extractor, dataset, weights=config.extractor_weights, code=paths.code
    )
    evaluator = frechet.build_evaluator(dataset, extractor, config.fid_samples)
    check_same_data(stored, {**measured_facts(dataset, evaluator), **({"code": own} if own else {})})
    return dataset, evaluator
